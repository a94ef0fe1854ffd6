"""The prediction server's command line: `churn-server.pex` runs it with `--project churn`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from espalier import commandline, settings
from espalier.errors import ConfigurationError, EspalierError, UsageError
from espalier.project import load_project

if TYPE_CHECKING:
    # gRPC and SSL are loaded only when a server really starts.
    from espalier.serving.options import Addresses, Options
    from espalier.serving.tls import TlsFiles


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; give the exit code.

    Args:
        argv: Arguments; the process's own by default.
    """
    program = "espalier-server"
    try:
        asked = command_line(program).parse_args(argv)
        # A program of one product names it, and a caller may name it again.
        asked.project = tuple(dict.fromkeys(asked.project or settings.product_names()))
        if len(asked.project) == 1:
            program = f"{asked.project[0]}-server"
        if asked.new_token is not None:
            _print_token(asked.new_token)
            return 0
        return _serve(asked, program, sys.argv[1:] if argv is None else argv)
    except EspalierError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        # Ctrl-C before the server could take it as a signal to drain.
        return 130


def _print_token(name: str) -> None:
    from espalier.serving.tokens import new_token

    token, line = new_token(name)
    print(f"the token, shown this once: {token}\nits line in the tokens file:  {line}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, fix="see --help")


def command_line(program: str) -> argparse.ArgumentParser:
    """The options; the reference and the pages' tests read them too."""
    parser = _Parser(
        prog=program,
        description="Serves the champion models of one or several projects over gRPC and HTTP.",
        epilog="Everything else is set by environment variables, see .env.example.",
    )
    parser.add_argument(
        "--project",
        action="append",
        help="an ML product; may be given several times; default: those of ESPALIER_PRODUCTS",
    )
    parser.add_argument(
        "--new-token",
        metavar="NAME",
        help="print a fresh bearer token and its line for the tokens file, and end",
    )
    parser.add_argument(
        "--grpc-address", metavar="HOST:PORT", help="default: ESPALIER_GRPC_ADDRESS or loopback"
    )
    parser.add_argument(
        "--http-address",
        metavar="HOST:PORT",
        help="default: ESPALIER_HTTP_ADDRESS or loopback; empty for gRPC alone",
    )
    parser.add_argument(
        "--feature-repo",
        metavar="FOLDER",
        type=Path,
        help="read features by Feast's SDK, as the folder's feature_store.yaml says; "
        "default: from the wide-row store, directly",
    )
    _add_security(parser)
    parser.add_argument(
        "--as-of",
        metavar="DATE",
        type=commandline.midnight,
        help="judge the features' age as of this day, to replay history; default: the present",
    )
    parser.add_argument(
        "--no-prediction-log",
        action="store_true",
        help="do not write what is served to espalier.predictions",
    )
    parser.add_argument(
        "--log-sample",
        metavar="SHARE",
        type=float,
        default=1.0,
        help="the share of what is served that is written there; default: %(default)s",
    )
    parser.add_argument(
        "--log-retention-days",
        metavar="DAYS",
        type=int,
        default=0,
        help="drop months of it that ended so many days ago; default: keep all",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=_positive,
        default=1,
        help="processes that share the ports and the work; default: %(default)s",
    )
    # How the parent of several workers starts one of them.
    parser.add_argument("--worker-slot", help=argparse.SUPPRESS)
    parser.add_argument("--metrics-folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--drain-seconds",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="how long requests under way may take after SIGTERM; default: %(default)s",
    )
    return parser


def _add_security(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("security")
    for name, told in [
        ("--tls-certificate", "PEM file of the server's certificate chain; read again on change"),
        ("--tls-key", "PEM file of its key"),
        ("--tls-client-ca", "PEM file of authorities; only clients they signed are let in (mTLS)"),
        ("--tokens", "file of token hashes (see --new-token); calls then need a bearer token"),
    ]:
        group.add_argument(name, metavar="FILE", type=Path, help=told)
    group.add_argument(
        "--insecure-address-ok",
        action="store_true",
        help="let other addresses than loopback be served without TLS",
    )
    group.add_argument(
        "--rate",
        metavar="N",
        type=float,
        default=0.0,
        help="entities a second for each token, in each worker; default: no limit",
    )
    group.add_argument(
        "--max-entities",
        metavar="N",
        type=int,
        default=100_000,
        help="the largest BatchPredict; default: %(default)s",
    )


def _tls(asked: argparse.Namespace) -> TlsFiles | None:
    from espalier.serving.tls import TlsFiles

    certificate, key, client_ca = asked.tls_certificate, asked.tls_key, asked.tls_client_ca
    if (certificate is None) != (key is None) or (client_ca is not None and key is None):
        raise UsageError("TLS is asked for by halves", fix="give --tls-certificate and --tls-key")
    if certificate is None:
        return None
    return TlsFiles(certificate=certificate, key=key, client_ca=client_ca)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _serve(asked: argparse.Namespace, program: str, argv: Sequence[str]) -> int:
    config = settings.load()
    projects = tuple(load_project(name) for name in asked.project)
    # gRPC's core writes what clients sent amiss to standard error, in no form of ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Only now, so that --help and a wrong option answer at once.
    from espalier.serving import logs
    from espalier.serving.options import Options, Worker

    try:
        logs.configure(config.log_level)
    except ValueError as error:
        raise ConfigurationError(f"ESPALIER_LOG_LEVEL: {error}") from error

    def say_ready(at: Addresses) -> None:
        http = f", HTTP on {at.http}" if at.http else ""
        print(f"{program}: ready, gRPC on {at.grpc}{http}", flush=True)

    def now() -> datetime:
        return asked.as_of or datetime.now(UTC)

    options = Options(
        projects=projects,
        dsn=config.dsn,
        tracking_uri=config.mlflow_tracking_uri,
        grpc_address=config.grpc_address if asked.grpc_address is None else asked.grpc_address,
        http_address=config.http_address if asked.http_address is None else asked.http_address,
        tls=_tls(asked),
        insecure_address_ok=asked.insecure_address_ok,
        tokens=asked.tokens,
        rate=asked.rate,
        max_entities=asked.max_entities,
        feature_repo=asked.feature_repo,
        poll_seconds=config.model_poll_seconds,
        drain_seconds=asked.drain_seconds,
        log_predictions=not asked.no_prediction_log,
        log_sample=asked.log_sample,
        log_retention_days=asked.log_retention_days,
        otlp_endpoint=config.otlp_endpoint,
        worker=None
        if asked.worker_slot is None
        else Worker(asked.worker_slot, asked.metrics_folder, sys.stdin.fileno()),
        now=now,
    )
    if asked.workers > 1 and options.worker is None:
        return _supervise(options, asked.workers, argv, say_ready)
    import uvloop

    from espalier.serving import server

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(options, ready=say_ready))
    return 0


def _supervise(
    options: Options, workers: int, argv: Sequence[str], ready: Callable[[Addresses], None]
) -> int:
    from espalier.serving.supervisor import Supervisor, worker_command

    async def run() -> int:
        return await Supervisor(
            partial(worker_command, argv),
            workers=workers,
            grpc_address=options.grpc_address,
            http_address=options.http_address,
            drain_seconds=options.drain_seconds,
            ready=ready,
        ).run()

    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
