"""What PostgreSQL reads of our binary rows is what was written."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from espalier.postgres.connect import connect
from espalier.scoring.binary_copy import score_rows

TIMES = (
    datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
    datetime(2000, 1, 1, tzinfo=UTC),
    datetime(2026, 6, 30, 1, 2, 3, 4, UTC),
)


def table(keys: pa.Array) -> pa.Table:
    rows = range(len(keys))
    return pa.table(
        {
            "key": keys,
            "score": pa.array([0.1 * (n + 1) for n in rows], pa.float64()),
            "prediction": pa.array([float(n % 2) for n in rows], pa.float64()),
            "model_version": pa.repeat("5", len(keys)),
            "feature_time": pa.array([TIMES[n % 3] for n in rows], pa.timestamp("us", tz="UTC")),
        }
    )


def stored(dsn: str, tables: list[pa.Table]) -> list[tuple[Any, ...]]:
    with connect(dsn) as connection:
        connection.execute("CREATE TEMPORARY TABLE written (LIKE espalier.scores)")
        for one in tables:
            with connection.cursor().copy("COPY written FROM STDIN (FORMAT BINARY)") as copy:
                for rows in score_rows(7, one, "key"):
                    copy.write(rows)
        return connection.execute(
            "SELECT run_id, entity_id, score, prediction, feature_time FROM written ORDER BY score"
        ).fetchall()


@pytest.mark.parametrize(
    "keys",
    [
        ["b", "a", "", "ü", 'k\n,"\\', "a much longer key", "é\t", "z"],
        [],
        ["only"],
    ],
)
def test_texts_of_any_length(dsn: str, keys: list[str]) -> None:
    written = table(pa.array(keys, pa.string()))
    expected = [
        (7, row["key"], row["score"], row["prediction"], row["feature_time"])
        for row in written.to_pylist()
    ]
    assert stored(dsn, [written]) == expected


def test_integers_and_chunks(dsn: str) -> None:
    numbers = [-(2**63), 0, 7, 2**63 - 1]
    whole = table(pa.array(numbers, pa.int64()))
    # Slices of one table share its buffers.
    rows = stored(dsn, [whole.slice(0, 1), whole.slice(1)])
    assert [row[1] for row in rows] == [str(number) for number in numbers]
    assert all(math.isfinite(row[2]) for row in rows)
