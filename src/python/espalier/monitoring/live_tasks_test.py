"""Served classes and numbers against labels that came later, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    mean_absolute_error,
    median_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from espalier.errors import BadData
from espalier.ingest import tables
from espalier.monitoring.live import measure
from espalier.monitoring.performance import Live
from espalier.monitoring.testing import CLASSES, SALES, SIZES, declare, insert, snapshot
from espalier.postgres import embedded
from espalier.postgres.connect import Connection, connect
from espalier.postgres.migrate import migrate
from espalier.project import Project

SHOPS = 300
MARCH, APRIL, JUNE = date(1997, 3, 31), date(1997, 4, 30), date(1997, 6, 30)
AT_ONCE = declare("at_once", horizon=timedelta(0))
NAMES = [f"s{number:04}" for number in range(SHOPS)]
RANDOM = np.random.default_rng(1)
PLACES = RANDOM.integers(0, len(CLASSES), SHOPS)
LABELS = [CLASSES[place] for place in PLACES.tolist()]
AMOUNTS = RANDOM.lognormal(3, 1, SHOPS)


def probabilities(sharp: float) -> np.ndarray:
    """Probabilities [n, k] that tell the classes apart, the better the sharper."""
    raw = np.random.default_rng(2).normal(0, 1, (SHOPS, len(CLASSES)))
    raw[np.arange(SHOPS), PLACES] += sharp
    exact = np.exp(raw)
    found: np.ndarray = exact / exact.sum(axis=1, keepdims=True)
    return found


def serve(
    connection: Connection,
    project: Project,
    values: np.ndarray,
    *,
    version: str = "1",
    shadow: bool = False,
    day: date = MARCH,
    hours: float = 9,
) -> None:
    """Log predictions as the server does; `values` are probabilities [n, k] or numbers [n]."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    with connection.cursor().copy(
        "COPY espalier.predictions (served_at, project, model_version, entity_id, score, "
        "prediction, probabilities, feature_time, features, shadow) FROM STDIN"
    ) as copy:
        for name, value in zip(NAMES, values.tolist(), strict=True):
            of = [max(value), float(np.argmax(value)), value] if values.ndim > 1 else [value] * 2
            numbers = of if values.ndim > 1 else [*of, None]
            copy.write_row(
                (
                    *(midnight + timedelta(hours=hours), project.name, version, name, *numbers),
                    *(midnight, [1.0, 2.0, 3.0, 4.0], shadow),
                )
            )


@pytest.fixture(scope="module")
def server() -> Iterator[embedded.Server]:
    with embedded.temporary() as running:
        yield running


@pytest.fixture
def dsn(server: embedded.Server, request: pytest.FixtureRequest) -> str:
    name = request.node.name[:60].lower()
    embedded.create_database(server, name)
    with connect(server.dsn(name)) as connection:
        migrate(connection)
        for project, labels, horizon in (
            (SIZES, LABELS, 30),
            (SALES, AMOUNTS.tolist(), 30),
            (AT_ONCE, [True, False] * (SHOPS // 2), 0),
        ):
            tables.ensure(connection, project)
            insert(
                connection,
                project,
                "endings",
                day=MARCH,
                known=MARCH + timedelta(days=horizon),
                snapshot=snapshot(connection, project),
                rows=list(zip(NAMES, labels, strict=True)),
            )
    return server.dsn(name)


def run(dsn: str, project: Project) -> Live:
    return measure(project, as_of=JUNE, dsn=dsn)


def test_classes(dsn: str) -> None:
    served = probabilities(2)
    with connect(dsn) as connection:
        serve(connection, SIZES, served)
    (one,) = run(dsn, SIZES).performances
    predicted = served.argmax(axis=1)
    expected = {
        "accuracy": accuracy_score(PLACES, predicted),
        "balanced_accuracy": balanced_accuracy_score(PLACES, predicted),
        "macro_f1": f1_score(PLACES, predicted, average="macro"),
        "log_loss": log_loss(PLACES, served),
        "roc_auc": roc_auc_score(PLACES, served, multi_class="ovr", average="macro"),
        "brier": ((served - np.eye(len(CLASSES))[PLACES]) ** 2).sum(axis=1).mean(),
    }
    assert {name: found.value for name, found in one.metrics.items()} == pytest.approx(expected)
    for found in one.metrics.values():
        assert found.interval.low < found.value < found.interval.high
    assert (one.rows, one.positives, one.unserved) == (SHOPS, None, 0)
    # Groups by the probability of the most probable class, and how often that one was right.
    assert sum(group.rows for group in one.calibration) == SHOPS
    right = sum(group.rows * group.positive_share for group in one.calibration) / SHOPS
    assert right == pytest.approx(expected["accuracy"])
    assert one.calibration[0].positive_share < one.calibration[-1].positive_share
    with connect(dsn) as connection:
        stored = connection.execute(
            "SELECT metric, value, positives FROM espalier.live_performance_latest ORDER BY 1"
        ).fetchall()
    assert [row[0] for row in stored] == sorted(expected)
    assert {row[2] for row in stored} == {None}


def test_a_shadow_of_classes_on_the_same_rows(dsn: str) -> None:
    weak, sharp = probabilities(0.5), probabilities(3)
    with connect(dsn) as connection:
        serve(connection, SIZES, weak)
        serve(connection, SIZES, sharp, version="2", shadow=True)
    (pair,) = run(dsn, SIZES).comparisons
    gained = pair.differences["accuracy"]
    expected = np.mean(sharp.argmax(axis=1) == PLACES) - np.mean(weak.argmax(axis=1) == PLACES)
    assert gained.value == pytest.approx(expected)
    assert 0 < gained.interval.low < gained.value < gained.interval.high
    # A loss that falls is a negative difference.
    assert pair.differences["log_loss"].interval.high < 0


def test_probabilities_of_other_classes_answer_nothing(dsn: str) -> None:
    """As of a model from before a class was added."""
    with connect(dsn) as connection:
        serve(connection, SIZES, probabilities(2)[:, :2])
    found = run(dsn, SIZES)
    assert found.performances == ()
    assert found.nothing == "nothing was served in time for the labels of 1997-03-31"


def test_a_class_without_labels_has_no_ranking(dsn: str) -> None:
    with connect(dsn) as connection:
        insert(
            connection,
            SIZES,
            "endings",
            day=MARCH,
            known=JUNE,
            snapshot=snapshot(connection, SIZES, 2),
            rows=[(n, "small") for n, label in zip(NAMES, LABELS, strict=True) if label == "large"],
        )
        serve(connection, SIZES, probabilities(2))
    (one,) = run(dsn, SIZES).performances
    assert set(one.metrics) == {
        *("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier"),
    }


def test_a_label_of_no_class_is_told(dsn: str) -> None:
    with connect(dsn) as connection:
        rows: list[tuple[object, ...]] = [("s0001", "huge")]
        number = snapshot(connection, SIZES, 2)
        insert(connection, SIZES, "endings", day=MARCH, known=JUNE, snapshot=number, rows=rows)
        serve(connection, SIZES, probabilities(2))
    with pytest.raises(BadData, match=r"1 labels in sizes\.endings have a closed that is none of"):
        run(dsn, SIZES)


def test_numbers(dsn: str) -> None:
    served = AMOUNTS + np.random.default_rng(5).normal(0, 10, SHOPS)
    with connect(dsn) as connection:
        serve(connection, SALES, served)
        serve(connection, SALES, AMOUNTS + 1, version="2", shadow=True)
    found = run(dsn, SALES)
    one = found.newest
    assert one is not None
    expected = {
        "r2": r2_score(AMOUNTS, served),
        "rmse": root_mean_squared_error(AMOUNTS, served),
        "mae": mean_absolute_error(AMOUNTS, served),
        "median_absolute_error": median_absolute_error(AMOUNTS, served),
    }
    assert {name: m.value for name, m in one.metrics.items()} == pytest.approx(expected)
    for measured in one.metrics.values():
        assert measured.interval.low < measured.value < measured.interval.high
    # The mean label of each tenth by the served value.
    means = [group.positive_share for group in one.calibration]
    assert means[0] < AMOUNTS.mean() < means[-1]
    (pair,) = found.comparisons
    assert pair.shadow_metrics["mae"] == pytest.approx(1)
    assert pair.differences["rmse"].interval.high < 0 < pair.differences["r2"].interval.low


def test_too_few_answers_are_said(dsn: str) -> None:
    with connect(dsn) as connection:
        serve(connection, SALES, AMOUNTS)
        connection.execute("DELETE FROM espalier.predictions WHERE entity_id > 's0018'")
    found = run(dsn, SALES)
    assert found.performances == ()
    assert found.nothing == "19 answers to labels of 1997-03-31 or before it, too few to measure"


def test_labels_that_come_with_their_features(dsn: str) -> None:
    """Only what was served before its label was known is a prediction."""
    scores = np.where(np.arange(SHOPS) % 2 == 0, 0.8, 0.3)
    with connect(dsn) as connection:
        serve(connection, AT_ONCE, scores)
    found = run(dsn, AT_ONCE)
    assert found.performances == ()
    assert found.nothing == "nothing was served of 1997-03-31 before its labels were known"
    with connect(dsn) as connection:
        insert(
            connection,
            AT_ONCE,
            "endings",
            day=APRIL,
            known=APRIL + timedelta(days=1),
            snapshot=snapshot(connection, AT_ONCE, 2),
            rows=list(zip(NAMES, [True, False] * (SHOPS // 2), strict=True)),
        )
        serve(connection, AT_ONCE, scores, day=APRIL)
        # Later than its label, and the last one of all.
        serve(connection, AT_ONCE, 1 - scores, day=APRIL, hours=30)
    (one,) = run(dsn, AT_ONCE).performances
    assert (one.label_time, one.rows) == (APRIL, SHOPS)
    assert one.metrics["roc_auc"].value == 1
