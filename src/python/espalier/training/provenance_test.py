from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from churn.project import PROJECT
from espalier.contract import ColumnType
from espalier.ingest import snapshots
from espalier.policies import Slice
from espalier.postgres import embedded, migrate
from espalier.postgres.connect import connect
from espalier.training import provenance


def test_a_declared_value_is_told_in_json() -> None:
    told = provenance.declaration(
        replace(PROJECT, slices=(Slice(name="all", feature="orders_90d"),))
    )
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["label"]["horizon"] == 90 * 86400
    assert told["slices"][0]["minimum"] == "-inf"
    assert told["estimator"] == "churn.estimator:build"
    assert "description" not in told


@pytest.mark.parametrize(
    "changed",
    [
        replace(PROJECT, view=replace(PROJECT.view, ttl=timedelta(days=1))),
        replace(PROJECT, view=replace(PROJECT.view, name="another")),
        replace(PROJECT, view=replace(PROJECT.view, features=PROJECT.view.features[::-1])),
    ],
)
def test_another_view_has_another_digest(changed) -> None:
    assert provenance.view_digest(changed) != provenance.view_digest(PROJECT)


def test_a_feature_of_another_type_changes_the_views_digest() -> None:
    (name, *_), table = PROJECT.view.features, PROJECT.table(PROJECT.view.table)
    assert table.column(name).type is ColumnType.INTEGER
    columns = tuple(
        replace(column, type=ColumnType.DOUBLE) if column.name == name else column
        for column in table.columns
    )
    changed = replace(
        PROJECT,
        tables=tuple(replace(t, columns=columns) if t is table else t for t in PROJECT.tables),
    )
    assert provenance.view_digest(changed) != provenance.view_digest(PROJECT)
    assert provenance.view_digest(replace(PROJECT, seed=3)) == provenance.view_digest(PROJECT)


def test_scores_are_told_apart_by_their_last_bit() -> None:
    scores = np.array([0.1, 0.2])
    assert provenance.scores_digest(scores) == provenance.scores_digest(scores.copy())
    other = np.array([0.1, np.nextafter(0.2, 1)])
    assert provenance.scores_digest(other) != provenance.scores_digest(scores)


def test_the_environment_names_the_libraries_that_train() -> None:
    found = provenance.environment()
    assert {"numpy", "scikit-learn", "onnxruntime", "skl2onnx"} <= found["libraries"].keys()
    assert found["python"].startswith("3.11.")
    assert "blas" in found["blas"]


@pytest.mark.parametrize(
    ("as_of", "days"),
    [
        # The backfill's rows were known as they happened, so also before its day.
        (date(1997, 5, 31), ["1997-06-30"]),
        (date(1997, 6, 30), ["1997-06-30"]),
        (date(1997, 8, 31), ["1997-06-30", "1997-07-31", "1997-08-31"]),
    ],
)
def test_the_snapshots_that_can_have_been_known(as_of, days) -> None:
    with embedded.temporary() as server, connect(server.dsn()) as connection:
        migrate.migrate(connection)
        for day in (date(1997, 6, 30), date(1997, 7, 31), date(1997, 8, 31)):
            snapshots.insert(
                connection,
                project="churn",
                as_of=day,
                revision=1,
                digest=f"digest of {day}",
                files={},
                row_counts={},
                validation={},
                created_by="t",
            )
        found = provenance.known_snapshots(connection, PROJECT, as_of)
    assert [one["as_of"] for one in found] == days
    assert found[0] == {
        "id": 1,
        "as_of": "1997-06-30",
        "revision": 1,
        "digest": "digest of 1997-06-30",
    }
