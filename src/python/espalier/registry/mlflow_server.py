"""The command that runs an MLflow server over PostgreSQL and a store of artifacts.

Quickstart and tests start it as a child process. This module does not import mlflow.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from espalier.errors import ConfigurationError
from espalier.probe import answers
from espalier.processes import Process, python_environment, reserved_port

# What MLflow's server needs to reach a store, by its URI's scheme. Clients need none of it: the
# server hands artifacts on.
_CLIENTS = {"s3": "boto3", "gs": "google.cloud.storage", "wasbs": "azure.storage.blob"}


def mlflow_server_environment(dsn: str) -> Mapping[str, str]:
    """The variables of a server that keeps metadata in `dsn`.

    Args:
        dsn: The URI of a database of MLflow's own, as `postgresql://...`; MLflow makes and
            migrates its tables in it. Its password is seen by no other user, as an argument's
            would be.
    """
    return {
        "MLFLOW_BACKEND_STORE_URI": dsn.replace("postgresql://", "postgresql+psycopg://", 1),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        # Without the job runner (for GenAI evaluations) two processes less are started.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def mlflow_server_command(
    artifacts: Path | str, port: int, *, host: str = "127.0.0.1"
) -> list[str]:
    """The argument vector of a server that hands out `artifacts`.

    Over PostgreSQL it starts in about 6 s on two cores, most of it imports.

    Args:
        artifacts: The folder of models and plots, made at first use, or the URI of any store that
            MLflow knows, as `s3://bucket/path`. Clients reach it through the server alone.
        port: The TCP port to listen on.
        host: The address to listen on.

    Raises:
        ConfigurationError: this environment lacks the library for that store.
    """
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--artifacts-destination", _store(artifacts), "--serve-artifacts"),
        *("--host", host, "--port", str(port), "--workers", "1"),
    ]


def _store(artifacts: Path | str) -> str:
    """The store's URI."""
    scheme = urlsplit(str(artifacts)).scheme
    if not scheme:
        return Path(artifacts).absolute().as_uri()
    if (client := _CLIENTS.get(scheme)) and not _installed(client):
        raise ConfigurationError(
            f"an artifact store at {scheme}:// needs the package {client.replace('.', '-')}",
            fix="add it to 3rdparty/python/requirements.txt, see docs/registry.md",
        )
    return str(artifacts)


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # Of a package above it.
        return False


def healthy(tracking_uri: str) -> bool:
    """Whether an MLflow server answers there."""
    return answers(f"{tracking_uri}/health")


@contextmanager
def serve(dsn: str, artifacts: Path | str, *, log: Path, port: int = 0) -> Iterator[str]:
    """Run a server on loopback; give its address once it answers.

    Args:
        dsn: As for `mlflow_server_environment`.
        artifacts: As for `mlflow_server_command`.
        log: The server's log file.
        port: The TCP port when it is free; otherwise, or for 0, another one.

    Raises:
        DependencyUnreachable: it does not start.
    """
    with (
        reserved_port(port) as chosen,
        Process(
            "MLflow",
            mlflow_server_command(artifacts, chosen),
            log=log,
            env={**python_environment(), **mlflow_server_environment(dsn)},
        ) as process,
    ):
        address = f"http://127.0.0.1:{chosen}"
        process.wait_until(lambda: healthy(address), seconds=120)
        yield address
