"""The prediction server's command line: `churn-server.pex` runs it with `--project churn`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NoReturn

from espalier import settings
from espalier.errors import ConfigurationError, EspalierError, UsageError
from espalier.project import load_project


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; give the exit code.

    Args:
        argv: Arguments; the process's own by default.
    """
    program = "espalier-server"
    try:
        asked = _parser(program).parse_args(argv)
        program = f"{asked.project}-server"
        _serve(asked, program)
    except EspalierError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        # Ctrl-C before the server could take it as a signal to drain.
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, fix="see --help")


def _parser(program: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        description="Serves a project's champion model over gRPC and HTTP.",
        epilog="Everything else is set by environment variables, see .env.example.",
    )
    parser.add_argument("--project", required=True, help="the ML product, such as churn")
    parser.add_argument(
        "--grpc-address", metavar="HOST:PORT", help="default: ESPALIER_GRPC_ADDRESS or loopback"
    )
    parser.add_argument(
        "--http-address",
        metavar="HOST:PORT",
        help="default: ESPALIER_HTTP_ADDRESS or loopback; empty for gRPC alone",
    )
    parser.add_argument(
        "--as-of",
        metavar="DATE",
        type=_midnight,
        help="judge the features' age as of this day, to replay history; default: the present",
    )
    parser.add_argument(
        "--no-prediction-log",
        action="store_true",
        help="do not write what is served to espalier.predictions",
    )
    parser.add_argument(
        "--drain-seconds",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="how long requests under way may take after SIGTERM; default: %(default)s",
    )
    return parser


def _midnight(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day, as 1998-06-30") from error


def _serve(asked: argparse.Namespace, program: str) -> None:
    config = settings.load()
    project = load_project(asked.project)
    # Only now, so that --help and a wrong option answer at once.
    import uvloop

    from espalier.serving import logs, server

    try:
        logs.configure(config.log_level)
    except ValueError as error:
        raise ConfigurationError(f"ESPALIER_LOG_LEVEL: {error}") from error

    def say_ready(at: server.Addresses) -> None:
        http = f", HTTP on {at.http}" if at.http else ""
        print(f"{program}: ready, gRPC on {at.grpc}{http}", flush=True)

    def now() -> datetime:
        return asked.as_of or datetime.now(UTC)

    options = server.Options(
        project=project,
        dsn=config.dsn,
        tracking_uri=config.mlflow_tracking_uri,
        grpc_address=config.grpc_address if asked.grpc_address is None else asked.grpc_address,
        http_address=config.http_address if asked.http_address is None else asked.http_address,
        poll_seconds=config.model_poll_seconds,
        drain_seconds=asked.drain_seconds,
        log_predictions=not asked.no_prediction_log,
        now=now,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(options, ready=say_ready))


if __name__ == "__main__":
    sys.exit(main())
