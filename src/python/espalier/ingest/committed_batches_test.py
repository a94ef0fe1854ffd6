"""The worked example's committed batches, ingested."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from churn.project import PROJECT
from espalier.ingest import snapshots
from espalier.ingest.conftest import Run
from espalier.postgres.connect import Connection

SEEDS = Path("data/seeds/churn")


def at(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


def rows(connection: Connection, query: str) -> Any:
    return connection.execute(query.encode()).fetchall()


def test_two_months_of_real_data(run: Run, connection: Connection) -> None:
    first = run(SEEDS / "month_000", project=PROJECT, as_of=date(1997, 6, 30))
    assert first.status == "stored"
    assert first.rows == {"users": 2357, "features": 9428, "labels": 2357}
    assert rows(
        connection, "SELECT known_at, count(*) FROM churn.features GROUP BY 1 ORDER BY 1"
    ) == [(at(1997, month, day), 2357) for month, day in [(3, 31), (4, 30), (5, 31), (6, 30)]]
    assert rows(connection, "SELECT DISTINCT known_at FROM churn.labels") == [(at(1997, 6, 29),)]
    assert rows(connection, "SELECT DISTINCT known_at FROM churn.users") == [(at(1997, 6, 30),)]

    second = run(SEEDS / "month_001", project=PROJECT, as_of=date(1997, 7, 31))
    assert second.rows == {"users": 0, "features": 2357, "labels": 2357}
    added = "SELECT DISTINCT feature_date, known_at FROM churn.features WHERE snapshot_id = 2"
    assert rows(connection, added) == [(date(1997, 7, 31), at(1997, 7, 31))]
    assert rows(connection, "SELECT DISTINCT known_at FROM churn.labels WHERE snapshot_id = 2") == [
        (at(1997, 7, 31),)
    ]
    assert rows(connection, "SELECT count(*), count(mean_gap_days) FROM churn.features_latest") == [
        (11785, rows(connection, "SELECT count(mean_gap_days) FROM churn.features")[0][0])
    ]

    before, newest = snapshots.list_snapshots(connection, "churn")
    assert newest == snapshots.newest(connection, "churn")
    assert (before.id, before.as_of, before.revision) == (1, date(1997, 6, 30), 1)
    assert before.digest == first.digest
    assert before.row_counts == {"users": 2357, "features": 9428, "labels": 2357}
    assert before.created_by == "tester"
    features = SEEDS / "month_000" / "features.csv"
    assert before.files["features"]["bytes"] == features.stat().st_size
    assert before.validation["success"] is True
    assert first.report is not None
    assert json.loads(first.report.with_suffix(".json").read_text()) == before.validation
    # Great Expectations' own account is kept, and told by its own pages.
    assert set(before.validation["great_expectations"]) == {"users", "features", "labels"}
    docs = (first.report.parent / "1997-06-30" / "features.html").read_text()
    assert "mean_gap_days" in docs
    assert 'href="1997-06-30/features.html"' in first.report.read_text()


def test_a_month_without_labels_is_stored(run: Run) -> None:
    done = run(SEEDS / "month_010", project=PROJECT, as_of=date(1998, 4, 30))
    assert done.rows == {"users": 2357, "features": 2357, "labels": 0}
