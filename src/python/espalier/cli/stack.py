"""The servers of one machine: PostgreSQL, MLflow, Prefect and the prediction server."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from espalier.errors import DependencyUnreachable
from espalier.orchestration import prefect_server
from espalier.orchestration.prefect_server import prefect_environment, prefect_server_command
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import migrate
from espalier.probe import answers
from espalier.processes import Process, python_environment, reserved_port
from espalier.registry import mlflow_server
from espalier.registry.mlflow_server import mlflow_server_command, mlflow_server_environment
from espalier.settings import Settings

# What a first start takes on a slow machine, several times over.
_PATIENCE_SECONDS = 180
_WATCH_SECONDS = 0.5


@dataclass(frozen=True)
class Stack:
    """Running servers; `settings` say where they are reached, `folder` holds what they keep."""

    settings: Settings
    mlflow: Process
    prefect: Process
    folder: Path

    @property
    def logs(self) -> Path:
        """The folder of their logs."""
        return self.folder / "logs"

    @property
    def password_file(self) -> Path:
        """Where PostgreSQL's password is kept."""
        return self.folder / "postgres" / "espalier.password"

    def wait_for_mlflow(self) -> None:
        """Wait until MLflow answers."""
        uri = self.settings.mlflow_tracking_uri
        self.mlflow.wait_until(lambda: mlflow_server.healthy(uri), seconds=_PATIENCE_SECONDS)

    def wait_for_prefect(self) -> None:
        """Wait until Prefect answers."""
        url = self.settings.prefect_api_url
        self.prefect.wait_until(lambda: prefect_server.healthy(url), seconds=_PATIENCE_SECONDS)

    def keep(self, server: Process) -> NoReturn:
        """Stay until interrupted, with the prediction server as one more.

        Raises:
            DependencyUnreachable: one of the servers has ended.
        """
        while True:
            for process in (self.mlflow, self.prefect, server):
                if process.exit_code is not None:
                    raise DependencyUnreachable(
                        f"{process.name} has ended with exit code {process.exit_code}",
                        fix=f"its log is {process.log}",
                    )
            time.sleep(_WATCH_SECONDS)


@contextmanager
def running(folder: Path, settings: Settings) -> Iterator[Stack]:
    """Start PostgreSQL, migrated, and set MLflow and Prefect starting, which takes them a while.

    Args:
        folder: Where the servers keep their data and logs.
        settings: Everything but the addresses, which are the public ports where those are free.

    Raises:
        DependencyUnreachable: PostgreSQL does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    logs = folder / "logs"
    with ExitStack() as stack:
        port = stack.enter_context(reserved_port(settings.postgres_port))
        server = stack.enter_context(
            embedded.serve(folder / "postgres", log=logs / "postgres.log", port=port)
        )
        embedded.create_database(server, "mlflow")
        with connect(server.dsn()) as connection:
            migrate(connection)
        mlflow_port = stack.enter_context(reserved_port(5000))
        prefect_port = stack.enter_context(reserved_port(4200))
        reached = replace(
            settings,
            postgres_host=server.host,
            postgres_port=server.port,
            postgres_user=server.user,
            postgres_password=server.password,
            postgres_db=embedded.USER,
            mlflow_tracking_uri=f"http://127.0.0.1:{mlflow_port}",
            prefect_api_url=f"http://127.0.0.1:{prefect_port}/api",
        )
        mlflow = Process(
            "MLflow",
            mlflow_server_command(settings.artifacts or folder / "mlflow", mlflow_port),
            log=logs / "mlflow.log",
            env={**python_environment(), **mlflow_server_environment(server.dsn("mlflow"))},
        )
        stack.enter_context(mlflow)
        prefect = Process(
            "Prefect",
            prefect_server_command(prefect_port),
            log=logs / "prefect.log",
            env={**python_environment(), **prefect_environment(folder / "prefect")},
        )
        stack.enter_context(prefect)
        yield Stack(reached, mlflow, prefect, folder)


@dataclass(frozen=True)
class Serving:
    """A running prediction server, and where it is reached."""

    process: Process
    grpc_address: str
    http_address: str


@contextmanager
def predicting(stack: Stack, arguments: list[str]) -> Iterator[Serving]:
    """Run the prediction server, and wait until it is ready to predict."""
    with ExitStack() as exits:
        grpc_address, http_address = (
            f"127.0.0.1:{exits.enter_context(reserved_port(port))}" for port in (50051, 8000)
        )
        addresses = ["--grpc-address", grpc_address, "--http-address", http_address]
        process = Process(
            "the prediction server",
            [sys.executable, "-m", "espalier.serving.main", *arguments, *addresses],
            log=stack.logs / "server.log",
            env={**python_environment(), **stack.settings.environment()},
        )
        exits.enter_context(process)
        url = f"http://{http_address}/ready"
        process.wait_until(lambda: answers(url), seconds=_PATIENCE_SECONDS)
        yield Serving(process, grpc_address, http_address)


def adopt(settings: Settings, folder: Path) -> None:
    """Make this process a client of the stack: flows read their settings from the environment."""
    os.environ.update(settings.environment())
    os.environ.update(prefect_environment(folder / "prefect"))
    # Flows that end within seconds: their errors are said once, by us.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
