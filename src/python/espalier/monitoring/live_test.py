"""Served predictions against labels that came later, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from espalier.ingest import tables
from espalier.monitoring import live
from espalier.monitoring.live import measure
from espalier.monitoring.performance import Live
from espalier.monitoring.testing import SHOP, insert
from espalier.postgres import embedded
from espalier.postgres.connect import Connection, connect
from espalier.postgres.migrate import migrate

SHOPS = 600
MARCH, APRIL, MAY, JUNE = (date(1997, m, d) for m, d in ((3, 31), (4, 30), (5, 31), (6, 30)))
NAMES = [f"s{number:04}" for number in range(SHOPS)]
CLOSED = np.random.default_rng(1).random(SHOPS) < 0.6


def scores(seed: int, sharp: float) -> np.ndarray:
    """Scores that tell the closed shops from the others, the better the sharper."""
    noise = np.random.default_rng(seed).normal(0, 1, SHOPS)
    return 1 / (1 + np.exp(-(sharp * (CLOSED - 0.5) + noise)))


GOOD, WEAK = scores(2, 3.0), scores(3, 1.0)


def at(day: date, hours: float = 9) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hours)


def serve(
    connection: Connection,
    served_at: datetime,
    version: str,
    values: np.ndarray,
    *,
    of: date,
    names: list[str] = NAMES,
    shadow: bool = False,
) -> None:
    with connection.cursor().copy(
        "COPY espalier.predictions (served_at, project, model_version, entity_id, score, "
        "prediction, feature_time, features, shadow) FROM STDIN"
    ) as copy:
        for name, score in zip(names, values.tolist(), strict=True):
            row = (served_at, "shop", version, name, score, 1.0, at(of, 0), [1.0, 2.0, 3.0, 4.0])
            copy.write_row((*row, shadow))


@pytest.fixture
def dsn() -> Iterator[str]:
    with embedded.temporary() as server:
        with connect(server.dsn()) as connection:
            migrate(connection)
            tables.ensure(connection, SHOP)
            made = connection.execute(
                "INSERT INTO espalier.snapshots (project, as_of, revision, digest, files, "
                "row_counts, validation, created_by) "
                "VALUES ('shop', '1997-07-31', 1, '', '{}', '{}', '{}', 'test') RETURNING id"
            ).fetchone()
            assert made is not None
            for day in (MARCH, APRIL):
                insert(
                    connection,
                    SHOP,
                    "endings",
                    day=day,
                    known=day + timedelta(days=30),
                    snapshot=made[0],
                    rows=list(zip(NAMES, CLOSED.tolist(), strict=True)),
                )
        yield server.dsn()


def run(dsn: str, as_of: date = JUNE) -> Live:
    return measure(SHOP, as_of=as_of, dsn=dsn)


def test_the_metrics_of_what_was_served(dsn: str) -> None:
    with connect(dsn) as connection:
        serve(connection, at(MARCH), "1", GOOD, of=MARCH)
    found = run(dsn)
    (one,) = found.performances
    assert found.newest == one
    assert (one.label_time, one.model_version, one.role) == (MARCH, "1", "champion")
    assert (one.rows, one.positives, one.unserved) == (SHOPS, int(CLOSED.sum()), 0)
    value = one.metrics["roc_auc"]
    assert value.value == pytest.approx(roc_auc_score(CLOSED, GOOD))
    assert value.interval.low < value.value < value.interval.high
    assert 0.01 < value.interval.high - value.interval.low < 0.1
    expected = average_precision_score(CLOSED, GOOD)
    assert one.metrics["pr_auc"].value == pytest.approx(expected)
    assert one.metrics["brier"].value == pytest.approx(brier_score_loss(CLOSED, GOOD))
    assert sum(group.rows for group in one.calibration) == SHOPS
    means = [group.mean_score for group in one.calibration]
    assert means == sorted(means)
    assert one.calibration[0].positive_share < 0.3
    assert one.calibration[-1].positive_share > 0.9
    with connect(dsn) as connection:
        stored = connection.execute(
            "SELECT metric, value, low, high, rows FROM espalier.live_performance_latest ORDER BY 1"
        ).fetchall()
        bins = connection.execute("SELECT count(*) FROM espalier.live_calibration").fetchone()
    assert [row[0] for row in stored] == sorted(live.METRICS)
    assert stored[-1][1:] == (value.value, value.interval.low, value.interval.high, SHOPS)
    assert bins == (10,)


def test_which_prediction_answers(dsn: str) -> None:
    """The last of the label's own time; none of before, of later, or of newer features."""
    with connect(dsn) as connection:
        wrong = 1 - GOOD
        serve(connection, at(MARCH, -24), "1", wrong, of=date(1997, 2, 28))
        serve(connection, at(MARCH, 0), "1", wrong, of=MARCH)
        serve(connection, at(date(1997, 4, 20)), "1", GOOD, of=MARCH)
        serve(connection, at(date(1997, 4, 25)), "1", wrong, of=date(1997, 4, 24))
        # As long after the label's time as the declaration allows, and no more.
        serve(connection, at(MARCH, 24 * 28), "1", wrong, of=MARCH)
    (one,) = run(dsn).performances
    assert one.label_time == MARCH
    assert one.metrics["roc_auc"].value == pytest.approx(roc_auc_score(CLOSED, GOOD))


def test_versions_answer_for_what_they_served(dsn: str) -> None:
    with connect(dsn) as connection:
        serve(connection, at(MARCH), "9", WEAK[:400], of=MARCH, names=NAMES[:400])
        serve(connection, at(MARCH, 30), "10", GOOD[300:], of=MARCH, names=NAMES[300:])
        serve(connection, at(APRIL), "10", GOOD, of=APRIL)
    found = run(dsn).performances
    assert [(p.label_time, p.model_version, p.rows, p.unserved) for p in found] == [
        (MARCH, "9", 400, 200),
        (MARCH, "10", 300, 300),
        (APRIL, "10", 600, 0),
    ]
    assert found[0].metrics["roc_auc"].value == pytest.approx(
        roc_auc_score(CLOSED[:400], WEAK[:400])
    )


def test_the_shadow_on_the_same_rows(dsn: str) -> None:
    with connect(dsn) as connection:
        serve(connection, at(MARCH), "1", WEAK[:500], of=MARCH, names=NAMES[:500])
        serve(connection, at(MARCH), "2", GOOD[200:], of=MARCH, names=NAMES[200:], shadow=True)
        # Of other features, so no pair with those of the shadow.
        serve(connection, at(MARCH, 9.5), "1", WEAK[490:500], of=APRIL, names=NAMES[490:500])
        old = date(1997, 2, 28)
        serve(connection, at(MARCH, 10), "1", WEAK[480:490], of=old, names=NAMES[480:490])
    found = run(dsn)
    assert [(p.model_version, p.role, p.rows) for p in found.performances] == [
        ("1", "champion", 500),
        ("2", "shadow", 400),
    ]
    (pair,) = found.comparisons
    same = np.r_[200:480, 490:500]
    assert (pair.champion, pair.shadow, pair.rows) == ("1", "2", len(same))
    difference = pair.differences["roc_auc"]
    expected = roc_auc_score(CLOSED[same], GOOD[same]) - roc_auc_score(CLOSED[same], WEAK[same])
    assert difference.value == pytest.approx(expected)
    assert 0 < difference.interval.low < difference.value < difference.interval.high
    with connect(dsn) as connection:
        stored = connection.execute(
            "SELECT metric, champion_value, shadow_value, difference FROM espalier.live_comparison"
        ).fetchall()
    assert len(stored) == len(live.METRICS)
    assert all(row[2] - row[1] == pytest.approx(row[3]) for row in stored)


def test_labels_that_are_not_known_yet(dsn: str) -> None:
    with connect(dsn) as connection:
        serve(connection, at(MARCH), "1", GOOD, of=MARCH)
        serve(connection, at(APRIL), "1", GOOD, of=APRIL)
    assert run(dsn, date(1997, 4, 29)).performances == ()
    assert [p.label_time for p in run(dsn, APRIL).performances] == [MARCH]
    # March is measured, and no longer the newest.
    assert [p.label_time for p in run(dsn, JUNE).performances] == [APRIL]
    assert [p.label_time for p in run(dsn, JUNE).performances] == [APRIL]
    with connect(dsn) as connection:
        latest = connection.execute(
            "SELECT label_time, count(*) FROM espalier.live_performance_latest GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert latest == [(MARCH, len(live.METRICS)), (APRIL, len(live.METRICS))]


def test_too_few_answers(dsn: str) -> None:
    with connect(dsn) as connection:
        serve(connection, at(MARCH), "1", GOOD[:30], of=MARCH, names=NAMES[:30])
    found = run(dsn)
    assert found.performances == ()
    assert found.newest is None


def test_labels_that_are_revised_are_measured_again(dsn: str) -> None:
    july = date(1997, 7, 31)
    with connect(dsn) as connection:
        serve(connection, at(MARCH), "1", GOOD, of=MARCH)
        serve(connection, at(APRIL), "1", GOOD, of=APRIL)
    assert [p.label_time for p in run(dsn).performances] == [MARCH, APRIL]
    assert [p.label_time for p in run(dsn).performances] == [APRIL]
    revised = CLOSED.copy()
    revised[:50] = ~revised[:50]
    with connect(dsn) as connection:
        made = connection.execute(
            "INSERT INTO espalier.snapshots (project, as_of, revision, digest, files, "
            "row_counts, validation, created_by) "
            "VALUES ('shop', '1997-07-31', 2, '', '{}', '{}', '{}', 'test') RETURNING id"
        ).fetchone()
        assert made is not None
        insert(
            connection,
            SHOP,
            "endings",
            day=MARCH,
            known=july,
            snapshot=made[0],
            rows=list(zip(NAMES[:50], revised[:50].tolist(), strict=True)),
        )
    # What was not known on that day is no reason.
    assert [p.label_time for p in run(dsn).performances] == [APRIL]
    march, april = run(dsn, july).performances
    assert (march.label_time, april.label_time) == (MARCH, APRIL)
    assert march.metrics["roc_auc"].value == pytest.approx(roc_auc_score(revised, GOOD))
    assert [p.label_time for p in run(dsn, july).performances] == [APRIL]
    with connect(dsn) as connection:
        stored = connection.execute(
            "SELECT value FROM espalier.live_performance "
            "WHERE label_time = %s AND metric = 'roc_auc' ORDER BY id",
            [MARCH],
        ).fetchall()
        latest = connection.execute(
            "SELECT value, labels_snapshot FROM espalier.live_performance_latest "
            "WHERE label_time = %s AND metric = 'roc_auc'",
            [MARCH],
        ).fetchall()
    # The first one stays; the newest counts.
    assert [row[0] for row in stored] == pytest.approx(
        [roc_auc_score(CLOSED, GOOD), roc_auc_score(revised, GOOD)]
    )
    assert latest == [(stored[1][0], made[0])]
