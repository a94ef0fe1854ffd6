"""Batch scoring into a partition of espalier.scores."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import psycopg
import pytest

from espalier.errors import BadData
from espalier.postgres.connect import connect
from espalier.registry.download import FetchedModel
from espalier.scoring import plan, work
from espalier.scoring.postgres import PostgresSink
from espalier.scoring.progress import Progress
from espalier.scoring.score import POSTGRESQL, Scored, score_with
from espalier.scoring.testing import FEATURES, JUNE, MAY, SHOP, SHOPS, facts


@pytest.fixture(autouse=True)
def _without_earlier_runs(dsn: str) -> None:
    with connect(dsn) as connection:
        runs = connection.execute("SELECT id FROM espalier.score_runs").fetchall()
        for (run_id,) in runs:
            connection.execute(f"DROP TABLE IF EXISTS espalier.scores_{run_id}")
        connection.execute("TRUNCATE espalier.score_runs, espalier.score_parts")


def run(model: FetchedModel, dsn: str, *, as_of: date = JUNE, partitions: int = 4) -> Scored:
    return score_with(model, SHOP, as_of=as_of, dsn=dsn, output=POSTGRESQL, partitions=partitions)


def query(dsn: str, text: str) -> list[tuple[Any, ...]]:
    with connect(dsn) as connection:
        return connection.execute(text).fetchall()


def test_every_entity_once(dsn: str, model: FetchedModel, pipeline: Any) -> None:
    done = run(model, dsn)
    assert (done.rows, done.written, done.kept, done.output) == (SHOPS, 4, 0, "postgresql")
    rows = query(
        dsn,
        "SELECT entity_id, score, prediction, model_version FROM espalier.scores_latest "
        "WHERE project = 'shop' AND as_of = '1997-06-30' ORDER BY entity_id",
    )
    expected = facts(JUNE)
    assert [row[0] for row in rows] == list(expected["shop_id"])
    direct = pipeline.predict_proba(expected[list(FEATURES)].to_numpy())[:, 1]
    np.testing.assert_allclose([row[1] for row in rows], direct, atol=1e-6)
    assert [row[2] for row in rows] == [float(row[1] >= 0.4) for row in rows]
    assert {row[3] for row in rows} == {"5"}
    again = run(model, dsn)
    assert (again.rows, again.written, again.kept) == (SHOPS, 0, 4)
    # Whatever is asked, a run keeps the cut that it began with.
    assert run(model, dsn, partitions=9).kept == 4
    run(model, dsn, as_of=MAY)
    counts = query(dsn, "SELECT count(*) FROM espalier.scores GROUP BY run_id")
    assert counts == [(SHOPS,), (SHOPS,)]


class _DiesAt(PostgresSink):
    """Ends the run at the third part, whose mark is written and its rows are not."""

    def write(self, part: plan.Part, table: Any) -> None:
        if part.part == 2:
            with connect(self.dsn) as connection:
                connection.execute(
                    "INSERT INTO espalier.score_parts (run_id, part, rows) VALUES (%s, 2, 1)",
                    [self.run_id],
                )
                raise KeyboardInterrupt
        super().write(part, table)


def planned(model: FetchedModel, dsn: str) -> plan.Plan:
    with connect(dsn) as connection:
        return plan.make(
            connection,
            SHOP,
            model,
            as_of=JUNE,
            partitions=4,
            output=POSTGRESQL,
            keeps_cut=True,
        )


def test_nothing_is_seen_of_a_run_that_was_cut_short(dsn: str, model: FetchedModel) -> None:
    made = planned(model, dsn)
    sink = _DiesAt(dsn, made.run_id)
    job = work.job(model, SHOP, as_of=JUNE, dsn=dsn, sink=sink)
    sink.missing(made)
    for part in made.parts[:2]:
        work.score_part(job, part)
    with pytest.raises(KeyboardInterrupt):
        work.score_part(job, made.parts[2])
    assert query(dsn, "SELECT count(*) FROM espalier.scores") == [(0,)]
    done = run(model, dsn)
    assert (done.written, done.kept, done.rows) == (2, 2, SHOPS)
    assert query(dsn, "SELECT count(*), count(DISTINCT entity_id) FROM espalier.scores") == [
        (SHOPS, SHOPS)
    ]


def test_a_part_that_two_workers_write_is_there_once(dsn: str, model: FetchedModel) -> None:
    made = planned(model, dsn)
    sink = PostgresSink(dsn, made.run_id)
    job = work.job(model, SHOP, as_of=JUNE, dsn=dsn, sink=sink)
    sink.missing(made)
    for part in (*made.parts, made.parts[1]):
        work.score_part(job, part)
    assert sink.close(made) == SHOPS
    assert query(dsn, "SELECT count(*) FROM espalier.scores") == [(SHOPS,)]


def test_rows_that_were_lost_are_noticed(dsn: str, model: FetchedModel) -> None:
    made = planned(model, dsn)
    sink = PostgresSink(dsn, made.run_id)
    job = work.job(model, SHOP, as_of=JUNE, dsn=dsn, sink=sink)
    sink.missing(made)
    for part in made.parts:
        work.score_part(job, part)
    with connect(dsn) as connection:
        connection.execute(f"DELETE FROM espalier.scores_{made.run_id} WHERE entity_id = 's0007'")
    with pytest.raises(BadData, match=f"holds {SHOPS - 1} rows of {SHOPS} that were written"):
        run(model, dsn)
    with connect(dsn) as connection:
        connection.execute(
            f"INSERT INTO espalier.scores_{made.run_id} SELECT run_id, 's0008', score, prediction, "
            f"feature_time FROM espalier.scores_{made.run_id} WHERE entity_id = 's0008'"
        )
    with pytest.raises(psycopg.errors.UniqueViolation):
        run(model, dsn)


def test_a_snapshot_that_comes_meanwhile(dsn: str, model: FetchedModel, tmp_path: Any) -> None:
    class Stores(Progress):
        def part(self, rows: int) -> None:
            super().part(rows)
            with connect(dsn) as connection:
                connection.execute(
                    "INSERT INTO espalier.snapshots (project, as_of, revision, digest, files, "
                    "row_counts, validation, created_by) SELECT 'shop', '1997-06-30', "
                    "max(revision) + 1, 'new', '{}', '{}', '{}', 'test' FROM espalier.snapshots "
                    "WHERE project = 'shop'"
                )

    def attempt(progress: Progress | None) -> Scored:
        return score_with(
            model,
            SHOP,
            as_of=JUNE,
            dsn=dsn,
            output=tmp_path,
            partitions=2,
            progress=progress,
        )

    with pytest.raises(BadData, match="a snapshot of shop up to 1997-06-30 was stored meanwhile"):
        attempt(Stores())
    assert not (tmp_path / "_SUCCESS.json").exists()
    # What is known now is another input, so nothing of that run is kept.
    assert attempt(None).written == 2
