"""The place of the comparison: one PostgreSQL with real customers, and one model for all sides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg.conninfo import conninfo_to_dict

from espalier.features import feast_store, point_in_time
from espalier.features.layout import select_rows
from espalier.ingest.run import ingest
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import migrate
from espalier.project import Project, load_function, load_project
from espalier.registry import mlflow_server
from espalier.registry.trusted import TRUSTED
from espalier.training.fitting import matrix
from espalier.training.train import train


@dataclass(frozen=True)
class Place:
    """Where everything is. `rows` [n, f] are the online features of `entities`."""

    project: Project
    dsn: str
    tracking_uri: str
    as_of: datetime
    entities: tuple[str, ...]
    rows: npt.NDArray[np.float64]
    folder: Path

    @property
    def template_configuration(self) -> Path:
        """What `template_app` is started with."""
        return self.folder / "template.json"


@contextmanager
def prepared(data: Path, folder: Path) -> Iterator[Place]:
    """Ingest, materialize into both online stores, train; keep the servers running.

    Args:
        data: Holds churn's month_000 and later.
        folder: An empty folder for all that is written.
    """
    project = load_project("churn")
    batches = sorted((data / project.name).glob("month_*"))
    as_of = project.calendar.as_of(len(batches) - 1)
    end = datetime.combine(as_of, time(), UTC)
    with embedded.temporary() as server:
        with connect(server.dsn()) as connection:
            migrate(connection)
        embedded.create_database(server, "mlflow")
        for number, batch in enumerate(batches):
            ingest(
                project,
                source=batch,
                as_of=project.calendar.as_of(number),
                dsn=server.dsn(),
                reports_dir=folder / "reports",
                who="benchmark",
            )
        feast_store.apply(project, dsn=server.dsn())
        feast_store.materialize(project, dsn=server.dsn(), end=end)
        log = folder / "mlflow.log"
        with mlflow_server.serve(server.dsn("mlflow"), folder / "artifacts", log=log) as uri:
            train(project, as_of=as_of, dsn=server.dsn(), tracking_uri=uri, who="benchmark")
            _prepare_template(project, server.dsn(), folder, end)
            entities, rows = _online(project, server.dsn())
            yield Place(project, server.dsn(), uri, end, entities, rows, folder)


def _online(project: Project, dsn: str) -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
    with connect(dsn) as connection:
        known = point_in_time.features_at(connection, project, when=project.calendar.as_of(0))[
            project.entity.join_key
        ]
        query = select_rows(
            project.name, project.view.name, project.entity.join_key, project.view.features
        )
        found = connection.execute(query, [known.tolist()]).fetchall()
    values = [[float("nan") if v is None else float(v) for v in row[2:]] for row in found]
    return tuple(str(row[0]) for row in found), np.array(values)


def _prepare_template(project: Project, dsn: str, folder: Path, end: datetime) -> None:
    """The same definitions in Feast's own PostgreSQL store, and the model as MLflow saves it."""
    import mlflow.sklearn
    from feast import FeatureStore, RepoConfig

    parts = conninfo_to_dict(dsn)
    place: dict[str, Any] = {
        "host": parts["host"],
        "port": int(str(parts["port"])),
        "user": parts["user"],
        "password": parts.get("password", ""),
        "database": parts["dbname"],
        "sslmode": "disable",
    }
    configuration: dict[str, Any] = {
        "project": "template",
        "provider": "local",
        "registry": str(folder / "template_registry.db"),
        "offline_store": {"type": "postgres", "db_schema": "feast", **place},
        # A pool, as its documentation recommends for a server.
        "online_store": {
            "type": "postgres",
            "db_schema": "online",
            "conn_type": "pool",
            "min_conn": 8,
            "max_conn": 40,
            **place,
        },
        "entity_key_serialization_version": 3,
    }
    store = FeatureStore(config=RepoConfig(**configuration))
    store.apply(feast_store.definitions(project).objects())
    store.materialize(end - project.view.ttl, end)
    with connect(dsn) as connection:
        frame = point_in_time.training_set(connection, project, as_of=end.date())
    rows, labels = matrix(frame, project.view.features), frame["label"].to_numpy(dtype=int)
    np.savez(folder / "training.npz", rows=rows, labels=labels)
    estimator = load_function(project.estimator)(seed=project.seed)
    estimator.fit(rows, labels)
    model = folder / "template_model"
    mlflow.sklearn.save_model(estimator, str(model), skops_trusted_types=list(TRUSTED))
    told = {
        "feast": configuration,
        "model": str(model),
        "join_key": project.entity.join_key,
        "references": [f"{project.view.name}:{name}" for name in project.view.features],
    }
    (folder / "template.json").write_text(json.dumps(told))
