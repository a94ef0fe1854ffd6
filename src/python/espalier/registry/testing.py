"""A database with our schema, and an MLflow server over it, for tests of what uses both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from espalier.postgres import embedded, migrate
from espalier.postgres.connect import connect
from espalier.registry import mlflow_server


@contextmanager
def database_and_mlflow(folder: Path) -> Iterator[tuple[embedded.Server, str]]:
    """Run them; gives PostgreSQL and MLflow's address. Artifacts are in `folder`/artifacts."""
    with embedded.temporary() as server:
        embedded.create_database(server, "mlflow")
        with connect(server.dsn()) as connection:
            migrate.migrate(connection)
        log = folder / "mlflow.log"
        with mlflow_server.serve(server.dsn("mlflow"), folder / "artifacts", log=log) as uri:
            yield server, uri
