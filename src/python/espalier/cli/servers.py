"""`espalier server NAME`: the stack's servers, each in the foreground, as process-compose runs them."""

from __future__ import annotations

import argparse
from dataclasses import replace

from espalier import settings as configuration
from espalier.cli import observers
from espalier.orchestration.prefect_server import prefect_environment, prefect_server_command
from espalier.orchestration.worker import become
from espalier.postgres import foreground
from espalier.processes import python_environment, run_guarded
from espalier.registry.mlflow_server import mlflow_server_command, mlflow_server_environment
from espalier.settings import Settings

MLFLOW_DATABASE = "mlflow"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand for each server."""
    names = parser.add_subparsers(required=True, metavar="NAME", dest="server")
    postgres = names.add_parser(
        "postgres", help="PostgreSQL 16: PATH's, or else the one in this program"
    )
    postgres.set_defaults(run=_run_postgres)
    for name, run, port, told in (
        ("mlflow", _run_mlflow, 5000, "MLflow over that PostgreSQL"),
        ("prefect", _run_prefect, 4200, "Prefect over files of its own"),
        ("prometheus", observers.run_prometheus, 9090, "Prometheus, where PATH has one"),
        ("alertmanager", observers.run_alertmanager, 9093, "Alertmanager, where PATH has one"),
        ("grafana", observers.run_grafana, 3001, "Grafana, where PATH has one"),
    ):
        server = names.add_parser(name, help=told)
        server.add_argument("--port", type=int, default=port, help="default: %(default)s")
        server.set_defaults(run=run)
        observers.add_arguments(name, server)


def with_database(settings: Settings, name: str) -> str:
    """The connection URI of another database of the same server."""
    return replace(settings, postgres_db=name).dsn


def _run_postgres(_options: argparse.Namespace) -> int:
    settings = configuration.load()
    state = settings.stack_dir.absolute()
    argv = foreground.prepare(state / "postgres", settings, MLFLOW_DATABASE)
    foreground.write_psql(state / "psql", settings)
    become(argv, {})
    raise AssertionError("exec does not return")


def _run_mlflow(options: argparse.Namespace) -> int:
    settings = configuration.load()
    artifacts = settings.artifacts or settings.stack_dir / "mlflow"
    dsn = with_database(settings, MLFLOW_DATABASE)
    # It runs its server as a child, which a SIGKILL would leave behind on the port.
    return run_guarded(
        mlflow_server_command(artifacts, options.port),
        env={**python_environment(), **mlflow_server_environment(dsn)},
    )


def _run_prefect(options: argparse.Namespace) -> int:
    home = configuration.load().stack_dir / "prefect"
    become(
        prefect_server_command(options.port),
        {**python_environment(), **prefect_environment(home)},
    )
    raise AssertionError("exec does not return")
