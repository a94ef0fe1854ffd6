"""Batch scoring by models of classes and of a number, into files and into PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from espalier.errors import ScoreInvalid
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import migrate, packaged
from espalier.registry.download import FetchedModel
from espalier.scoring.score import POSTGRESQL, Scored, score_with
from espalier.scoring.testing import FEATURES, JUNE, MAY, SHOP, SHOPS, facts, save

CLASSES = ("quiet", "usual", "busy")
INPUT = [("features", FloatTensorType([None, len(FEATURES)]))]


def rows_of(day: Any) -> np.ndarray:
    found: np.ndarray = facts(day)[list(FEATURES)].to_numpy()
    return found


@pytest.fixture(scope="module")
def classifier() -> Any:
    rows = rows_of(MAY)
    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    return model.fit(rows, np.digitize(rows[:, 1], [2, 4]))


@pytest.fixture(scope="module")
def regressor() -> Any:
    rows = rows_of(MAY)
    model = make_pipeline(SimpleImputer(), StandardScaler(), LinearRegression())
    return model.fit(rows, 100 * rows[:, 1] - rows[:, 0])


@pytest.fixture(scope="module")
def classes(classifier: Any, tmp_path_factory: pytest.TempPathFactory) -> FetchedModel:
    graph = to_onnx(classifier, initial_types=INPUT, options={"zipmap": False})
    folder = tmp_path_factory.mktemp("classes")
    return save(folder, graph.SerializeToString(), "7", task="multiclass", classes=CLASSES)


@pytest.fixture(scope="module")
def numbers(regressor: Any, tmp_path_factory: pytest.TempPathFactory) -> FetchedModel:
    value = [("value", FloatTensorType([None, 1]))]
    graph = to_onnx(regressor, initial_types=INPUT, final_types=value)
    folder = tmp_path_factory.mktemp("numbers")
    return save(folder, graph.SerializeToString(), "8", task="regression")


def run(model: FetchedModel, dsn: str, output: Path | str) -> Scored:
    return score_with(model, SHOP, as_of=JUNE, dsn=dsn, output=output, partitions=3)


def in_postgresql(dsn: str, version: str) -> list[tuple[Any, ...]]:
    with connect(dsn) as connection:
        return connection.execute(
            "SELECT entity_id, score, prediction, probabilities FROM espalier.scores_latest "
            "WHERE model_version = %s AND as_of = %s ORDER BY entity_id",
            [version, JUNE],
        ).fetchall()


def test_classes(dsn: str, classes: FetchedModel, classifier: Any, tmp_path: Path) -> None:
    assert run(classes, dsn, tmp_path).rows == SHOPS
    table = pq.read_table(tmp_path)
    assert table.column_names == [
        *("shop_id", "score", "prediction", "label", "probabilities"),
        *("model_version", "feature_time"),
    ]
    found = table.to_pandas()
    direct = classifier.predict_proba(rows_of(JUNE))
    np.testing.assert_allclose(np.stack(found["probabilities"]), direct, atol=1e-5)
    places = np.stack(found["probabilities"]).argmax(axis=1)
    assert list(found["prediction"]) == list(places.astype(float))
    assert list(found["label"]) == [CLASSES[place] for place in places]
    assert set(found["label"]) == set(CLASSES)
    assert list(found["score"]) == [max(row) for row in found["probabilities"]]
    assert run(classes, dsn, POSTGRESQL).rows == SHOPS
    assert in_postgresql(dsn, "7") == [
        (key, score, prediction, list(probabilities))
        for key, score, prediction, probabilities in zip(
            *(found[name] for name in ("shop_id", "score", "prediction", "probabilities")),
            strict=True,
        )
    ]


def test_numbers(dsn: str, numbers: FetchedModel, regressor: Any, tmp_path: Path) -> None:
    run(numbers, dsn, tmp_path)
    found = pq.read_table(tmp_path).to_pandas()
    assert list(found) == ["shop_id", "score", "prediction", "model_version", "feature_time"]
    direct = regressor.predict(rows_of(JUNE))
    assert direct.min() < 0
    np.testing.assert_allclose(found["score"], direct, rtol=1e-4, atol=1e-2)
    assert list(found["prediction"]) == list(found["score"])
    run(numbers, dsn, POSTGRESQL)
    assert in_postgresql(dsn, "8") == [
        (key, score, score, None)
        for key, score in zip(found["shop_id"], found["score"], strict=True)
    ]


def test_a_number_that_is_none(dsn: str, tmp_path: Path) -> None:
    rows = rows_of(MAY)
    model = make_pipeline(SimpleImputer(), LinearRegression()).fit(rows, rows[:, 1])
    model[-1].coef_[:] = 3e38
    value = [("value", FloatTensorType([None, 1]))]
    graph = to_onnx(model, initial_types=INPUT, final_types=value)
    infinite = save(tmp_path, graph.SerializeToString(), "9", task="regression")
    with pytest.raises(ScoreInvalid, match="scores are not finite"):
        run(infinite, dsn, tmp_path / "out")


def test_a_run_from_before_the_migration_is_taken_up() -> None:
    """Its table, not attached yet, has a place for probabilities then."""
    with embedded.temporary() as server, connect(server.dsn()) as connection:
        migrate(connection, [m for m in packaged() if m.number < 12])
        connection.execute("CREATE TABLE espalier.scores_1 (LIKE espalier.scores)")
        connection.execute("INSERT INTO espalier.scores_1 VALUES (1, 'a', 0.5, 1, now())")
        connection.commit()
        migrate(connection)
        connection.execute(
            "ALTER TABLE espalier.scores ATTACH PARTITION espalier.scores_1 FOR VALUES IN (1)"
        )
        rows = connection.execute("SELECT entity_id, probabilities FROM espalier.scores").fetchall()
    assert rows == [("a", None)]
