"""Real parts for the tests of serving: a small ONNX model, an online table, a model registry."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import psycopg
from psycopg import sql

from churn.project import PROJECT
from espalier.features import layout
from espalier.postgres.migrate import migrate
from espalier.project import Project
from espalier.registry.manifest import MANIFEST, ONNX, ModelManifest
from espalier.testing_web import Handler, web_server

FEATURES = PROJECT.view.features
TYPES = tuple(PROJECT.table(PROJECT.view.table).column(n).type.value for n in FEATURES)
# The feature rows are of this day, the tests' clock stands two weeks later.
FEATURE_TIME = datetime(1998, 6, 30, tzinfo=UTC)
AS_OF = datetime(1998, 7, 14, tzinfo=UTC)
STALE_TIME = datetime(1997, 12, 31, tzinfo=UTC)
ENTITIES = tuple(f"u{number:04}" for number in range(300))
# Where the models' score is 0.5.
MIDDLE = 150
STALE, NULLED = "stale", "nulled"


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition()` is true while the event loop goes on; 10 s at most."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # a probe
            await asyncio.sleep(0.01)


def features_of(entity: str) -> list[float]:
    """The feature values of one of `ENTITIES`, different for each."""
    number = float(entity[1:])
    return [number + position for position in range(len(FEATURES))]


@cache
def _onnx(slope: float) -> bytes:
    # The server's own tests of what it imports do not want these.
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    rows = rng.uniform(0, 300, (200, len(FEATURES))).astype(np.float32)
    model = LogisticRegression(max_iter=1000).fit(rows, rows[:, 0] > MIDDLE)
    model.coef_[:] = 0
    model.coef_[0, 0], model.intercept_[0] = slope, -MIDDLE * slope
    graph = to_onnx(
        model,
        initial_types=[("features", FloatTensorType([None, len(FEATURES)]))],
        options={"zipmap": False},
    )
    content: bytes = graph.SerializeToString()
    return content


def expected_score(entity: str, slope: float) -> float:
    """What the model of `slope` gives for one of `ENTITIES`: a logistic curve around number 150."""
    return float(1 / (1 + np.exp(-slope * (features_of(entity)[0] - MIDDLE))))


def write_model(folder: Path, *, slope: float = 0.01, **changes: object) -> ModelManifest:
    """Write a model version as training does; `changes` are applied to its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    content = _onnx(slope)
    (folder / ONNX).write_bytes(content)
    golden = ENTITIES[::50]
    manifest = ModelManifest(
        project=PROJECT.name,
        join_key=PROJECT.entity.join_key,
        view=PROJECT.view.name,
        features=FEATURES,
        feature_types=TYPES,
        ttl_seconds=PROJECT.view.ttl.total_seconds(),
        threshold=0.5,
        file=ONNX,
        digest=hashlib.sha256(content).hexdigest(),
        metrics={"roc_auc": 0.75},
        provenance={"slope": str(slope)},
        golden_rows=tuple(tuple(features_of(e)) for e in golden),
        golden_scores=tuple(expected_score(e, slope) for e in golden),
    )
    manifest = replace(manifest, **changes)  # type: ignore[arg-type]  # each test names its own
    (folder / MANIFEST).write_text(manifest.to_json())
    return manifest


def create_online_table(dsn: str, entities: Sequence[str] = ENTITIES) -> None:
    """Make and fill the churn view's table, with one stale row and one with a null."""
    rows: list[list[object]] = [[e, FEATURE_TIME, FEATURE_TIME, *features_of(e)] for e in entities]
    rows.append([STALE, STALE_TIME, STALE_TIME, *features_of("u0010")])
    rows.append([NULLED, FEATURE_TIME, FEATURE_TIME, *features_of("u0010")[:-1], None])
    fill_table(dsn, PROJECT, dict(zip(FEATURES, TYPES, strict=True)), rows)


def fill_table(
    dsn: str, project: Project, features: Mapping[str, str], rows: Sequence[Sequence[object]]
) -> None:
    """Make a view's online table as the store does, and fill it.

    Args:
        dsn: The database; it is migrated.
        project: Whose view.
        features: Their types in SQL, by name.
        rows: The key, the event's and the creation's time, and the features.
    """
    table = sql.Identifier(layout.SCHEMA, layout.table_name(project.name, project.view.name))
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))
        for name, kind in features.items()
    ]
    insert = sql.SQL("INSERT INTO {} VALUES ({})").format(
        table, sql.SQL(", ").join([sql.Placeholder()] * (3 + len(columns)))
    )
    with psycopg.connect(dsn) as connection:
        migrate(connection)
        connection.execute(
            sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(layout.SCHEMA))
        )
        connection.execute(
            sql.SQL(
                "CREATE TABLE {} ({} {} PRIMARY KEY, event_timestamp timestamptz NOT NULL, "
                "created_timestamp timestamptz, {})"
            ).format(
                table,
                sql.Identifier(project.entity.join_key),
                sql.SQL(project.key_type.value),
                sql.SQL(", ").join(columns),
            )
        )
        connection.cursor().executemany(insert, rows)


@dataclass
class Registry:
    """MLflow's REST calls for one model, over folders: what the download module asks for.

    Other models of the same server are added by `of`; what is none of these is this one.
    """

    champion: str | None = None
    challenger: str | None = None
    folders: dict[str, Path] = field(default_factory=dict)
    asked: int = 0
    uri: str = ""
    others: dict[str, Registry] = field(default_factory=dict)

    def of(self, model: str) -> Registry:
        """The same server's answers for another model, which has no version at first."""
        return self.others.setdefault(model, Registry(uri=self.uri))

    def publish(self, version: str, folder: Path) -> None:
        """Make the version in `folder` the champion."""
        self.folders[version] = folder
        self.champion = version

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, bytes]:
        """The status and body for a GET."""
        name = query["name"][0] if "name" in query else path.split("/")[-3:][0]
        return self.others.get(name, self)._answer(path, query)  # noqa: SLF001  # its own class

    def _answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, bytes]:
        self.asked += 1
        if path == "/api/2.0/mlflow/registered-models/alias":
            version = {"champion": self.champion, "challenger": self.challenger}.get(
                query["alias"][0]
            )
            if version is None:
                return 404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}'
            return 200, _json({"model_version": {"version": version}})
        if path == "/api/2.0/mlflow/model-versions/get":
            return 200, _json({"model_version": {"version": query["version"][0]}})
        if path == "/api/2.0/mlflow/model-versions/get-download-uri":
            place = f"{query['name'][0]}/{query['version'][0]}"
            return 200, _json({"artifact_uri": f"mlflow-artifacts:/{place}"})
        *_, version, name = path.split("/")
        try:
            return 200, (self.folders[version] / name).read_bytes()
        except (KeyError, OSError):
            return 404, b"{}"


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


@contextmanager
def running_registry(port: int = 0) -> Iterator[Registry]:
    """Serve an empty `Registry` on loopback."""
    registry = Registry()

    class Asked(Handler):
        def answer(self) -> tuple[int, bytes]:
            url = urlsplit(self.path)
            return registry.answer(url.path, parse_qs(url.query))

    with web_server(Asked, port) as address:
        registry.uri = f"http://{address}"
        yield registry
