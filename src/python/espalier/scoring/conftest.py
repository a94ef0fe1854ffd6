"""A database with features, and a model, real ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from psycopg import sql
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from espalier.ingest import tables
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import migrate
from espalier.registry.download import FetchedModel
from espalier.scoring.testing import FEATURES, JUNE, MAY, SEPTEMBER, SHOP, SHOPS, facts, save


@pytest.fixture(scope="package")
def server() -> Iterator[embedded.Server]:
    with embedded.temporary() as server:
        with connect(server.dsn()) as connection:
            migrate(connection)
            tables.ensure(connection, SHOP)
            made = connection.execute(
                "INSERT INTO espalier.snapshots (project, as_of, revision, digest, files, "
                "row_counts, validation, created_by) "
                "VALUES ('shop', '1997-06-30', 1, '', '{}', '{}', '{}', 'test') RETURNING id"
            ).fetchone()
            assert made is not None
            copy = sql.SQL("COPY shop.facts FROM STDIN")
            with connection.cursor().copy(copy) as stream:
                for day, shops in ((MAY, SHOPS), (JUNE, SHOPS), (SEPTEMBER, 7)):
                    for name, amount, visits, gap in facts(day).head(shops).to_numpy():
                        values = (amount, int(visits), None if np.isnan(gap) else gap)
                        stream.write_row((name, day, *values, f"{day} 00:00Z", made[0]))
        yield server


@pytest.fixture(scope="package")
def dsn(server: embedded.Server) -> str:
    return server.dsn()


@pytest.fixture(scope="package")
def pipeline() -> Any:
    rows = facts(MAY)[list(FEATURES)].to_numpy()
    activity = rows[:, 1] + np.random.default_rng(0).normal(0, 2, SHOPS)
    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    return model.fit(rows, activity < np.median(activity))


@pytest.fixture(scope="package")
def model(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> FetchedModel:
    graph = to_onnx(
        pipeline,
        initial_types=[("features", FloatTensorType([None, len(FEATURES)]))],
        options={"zipmap": False},
    )
    return save(tmp_path_factory.mktemp("model"), graph.SerializeToString(), "5")
