"""The `espalier` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from espalier import commandline, settings
from espalier.commandline import OneLineParser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; give the exit code."""

    def body() -> int:
        options = command_line().parse_args(arguments)
        code: int = options.run(options)
        return code

    return commandline.run("espalier", body, interrupted="interrupted; nothing is left running")


def command_line() -> argparse.ArgumentParser:
    """All commands with their options; the reference and the pages' tests read it too."""
    parser = OneLineParser("espalier", description="An MLOps platform on one machine or many.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    # "up" is what `./pants quickstart` calls, see [cli.alias] in pants.toml.
    quickstart = commands.add_parser(
        "quickstart", aliases=["up"], help="run the whole loop on this machine"
    )
    _add_quickstart(quickstart)
    # "create" and "append" are what `./pants new` and `./pants add-batch` call.
    _add_new(
        commands.add_parser("new", aliases=["create"], help="make an ML product of your own files")
    )
    _add_batch(
        commands.add_parser(
            "add-batch", aliases=["append"], help="convert a later file into a product's next batch"
        )
    )
    predict = commands.add_parser("predict", help="ask a prediction server for one entity")
    predict.add_argument("entity_id", help="the entity's key in the online store")
    predict.add_argument("--model", default="", help="the model, where the server has several")
    predict.add_argument("--address", help="HOST:PORT; default: ESPALIER_GRPC_ADDRESS")
    predict.set_defaults(run=_predict)
    _add_models(commands.add_parser("models", help="model versions: list, promote, roll back"))
    _add_reproduce(commands.add_parser("reproduce", help="train a version again and compare it"))
    _add_exporter(commands.add_parser("exporter", help="tell Prometheus what monitoring stored"))
    _add_deploy(
        commands.add_parser("deploy", help="bring Prefect's deployments to what is declared")
    )
    _add_worker(commands.add_parser("worker", help="run the deployments' PEXes on this host"))
    _add_doctor(commands.add_parser("doctor", help="look at every part, and say what is wrong"))
    # "make-repo" and "merge-repo" are what `./pants new-repo` and `./pants update-repo` call.
    told = "make a repository for a product of your own"
    _add_new_repo(commands.add_parser("new-repo", aliases=["make-repo"], help=told))
    told = "merge a later version into such a repository"
    _add_update_repo(commands.add_parser("update-repo", aliases=["merge-repo"], help=told))
    migrate = commands.add_parser("migrate", help="bring the database to this release's schema")
    migrate.set_defaults(run=_migrate)
    _add_env(commands.add_parser("env", help="write .env: a password, and a block of ports"))
    _add_server(commands.add_parser("server", help="run one of the stack's servers"))
    _add_fill(commands.add_parser("fill", help="the stack's first data: the committed batches"))
    _add_quarantine(commands.add_parser("quarantine", help="list, show and replay faulty rows"))
    return parser


def _add_quickstart(parser: argparse.ArgumentParser) -> None:
    from espalier.cli import quickstart

    quickstart.add_arguments(parser)
    parser.set_defaults(run=quickstart.run)


def _add_new(parser: argparse.ArgumentParser) -> None:
    from espalier.cli import new

    new.add_arguments(parser)


def _add_batch(parser: argparse.ArgumentParser) -> None:
    from espalier.cli import new

    new.add_batch_arguments(parser)


def _add_models(parser: argparse.ArgumentParser) -> None:
    from espalier.cli import models

    models.add_arguments(parser)


def _add_reproduce(parser: argparse.ArgumentParser) -> None:
    from espalier.cli import reproduce

    reproduce.add_arguments(parser)
    parser.set_defaults(run=reproduce.run)


def _add_new_repo(parser: argparse.ArgumentParser) -> None:
    from espalier.cli import new_repo

    new_repo.add_new_arguments(parser)


def _add_update_repo(parser: argparse.ArgumentParser) -> None:
    from espalier.cli import new_repo

    new_repo.add_update_arguments(parser)


def _add_quarantine(parser: argparse.ArgumentParser) -> None:
    from espalier.cli import quarantine

    quarantine.add_arguments(parser)


def _add_deploy(parser: argparse.ArgumentParser) -> None:
    from espalier.cli import deploy

    deploy.add_deploy_arguments(parser)


def _add_worker(parser: argparse.ArgumentParser) -> None:
    from espalier.cli import deploy

    deploy.add_worker_arguments(parser)


def _add_exporter(parser: argparse.ArgumentParser) -> None:
    from espalier.cli import exporter

    exporter.add_arguments(parser)


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    from espalier.cli.doctor import command

    command.add_arguments(parser)


def _add_env(parser: argparse.ArgumentParser) -> None:
    from espalier.cli import environment

    environment.add_arguments(parser)


def _add_server(parser: argparse.ArgumentParser) -> None:
    from espalier.cli import servers

    servers.add_arguments(parser)


def _add_fill(parser: argparse.ArgumentParser) -> None:
    from espalier.cli import fill

    fill.add_arguments(parser)


def _predict(options: argparse.Namespace) -> int:
    from espalier.cli.client import predict

    address = options.address or settings.load().grpc_address
    print(predict(address, options.entity_id, model=options.model).line())
    return 0


def _migrate(_options: argparse.Namespace) -> int:
    from espalier.postgres.connect import connect
    from espalier.postgres.migrate import migrate

    with connect(settings.load().dsn) as connection:
        applied = migrate(connection)
    print(f"applied {', '.join(map(str, applied))}" if applied else "nothing to apply")
    return 0


if __name__ == "__main__":
    sys.exit(main())
