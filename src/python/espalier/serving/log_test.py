from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pytest

from espalier.postgres import embedded, migrate
from espalier.postgres.connect import connect
from espalier.serving.caller import CURRENT, Caller
from espalier.serving.core import Predictor
from espalier.serving.log import PredictionLog
from espalier.serving.log_rows import Served
from espalier.serving.log_writer import LogWriter, _Doubt
from espalier.serving.metrics import Metrics
from espalier.serving.reader import FeatureRows, WideRowReader
from espalier.serving.testing import (
    AS_OF,
    ENTITIES,
    FEATURE_TIME,
    NULLED,
    create_online_table,
    expected_score,
    features_of,
    until,
)
from espalier.testing_web import NOBODY


@pytest.fixture(scope="module")
def dsn():
    """A database of this module's own: no server writes to its log."""
    with embedded.temporary() as server:
        create_online_table(server.dsn())
        yield server.dsn()


@pytest.fixture
def stored(dsn):
    """Reads the log, which is empty at first."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE espalier.predictions")
        yield lambda columns: connection.execute(
            f"SELECT {columns} FROM espalier.predictions ORDER BY entity_id, served_at"
        ).fetchall()


def rows_of(keys):
    matrix = np.array([features_of(key) for key in keys])
    return FeatureRows(tuple(keys), (FEATURE_TIME,) * len(keys), matrix)


def counted(metrics, name):
    return metrics.registry.get_sample_value(f"espalier_predictions_{name}_total")


def test_what_is_predicted_is_logged_once_an_entity_and_batch(dsn, loaded, stored):
    async def body():
        metrics = Metrics()
        log = PredictionLog(dsn, every_seconds=0.05, observer=metrics)
        writing = asyncio.create_task(log.run())
        reader = WideRowReader(dsn)
        predictor = Predictor(reader, name="churn", sink=log, clock=lambda: AS_OF)
        predictor.model = loaded
        asked = ["u0200", "nobody", "u0001", "u0200"]
        await predictor.predict(asked)
        log.close()
        await writing
        await predictor.close(1)
        await reader.close()
        assert counted(metrics, "logged") == 2
        assert counted(metrics, "not_logged") == 0

    asyncio.run(body())
    one, two = stored("entity_id, project, model_version, prediction, feature_time, served_at")
    assert one == ("u0001", "churn", "1", 0.0, FEATURE_TIME, AS_OF)
    assert two == ("u0200", "churn", "1", 1.0, FEATURE_TIME, AS_OF)
    for entity, score, features in stored("entity_id, score, features"):
        assert score == pytest.approx(expected_score(entity, 0.01), abs=1e-6)
        assert features == features_of(entity)


def test_a_null_feature_stays_null_and_an_invalid_score_is_not_logged(dsn, loaded, stored):
    matrix = np.array([features_of("u0001"), features_of("u0002")])
    matrix[:, -1] = np.nan
    rows = FeatureRows(("a", NULLED), (FEATURE_TIME,) * 2, matrix)

    async def body():
        log = PredictionLog(dsn)
        log.record(loaded, rows, np.array([0.25, np.nan]), AS_OF, {})
        log.close()
        await log.run()

    asyncio.run(body())
    (only,) = stored("entity_id, score, features")
    assert only == ("a", 0.25, [*features_of("u0001")[:-1], None])


def test_a_full_queue_drops_and_counts_and_keeps_the_older_rows(dsn, loaded, stored):
    async def body():
        metrics = Metrics()
        log = PredictionLog(dsn, max_rows=5, observer=metrics)
        for number, keys in enumerate([ENTITIES[:3], ENTITIES[3:6], ENTITIES[6:8]]):
            at = AS_OF + timedelta(seconds=number)
            log.record(loaded, rows_of(keys), np.full(len(keys), 0.5), at, {})
        assert counted(metrics, "not_logged") == 3
        log.close()
        log.record(loaded, rows_of(["u0009"]), np.array([0.5]), AS_OF, {})
        assert counted(metrics, "not_logged") == 4
        await log.run()
        assert counted(metrics, "logged") == 5

    asyncio.run(body())
    assert [key for (key,) in stored("entity_id")] == [*ENTITIES[:3], *ENTITIES[6:8]]


def test_a_write_that_fails_is_tried_again_and_nothing_is_written_twice(
    dsn, loaded, stored, caplog
):
    async def body():
        metrics = Metrics()
        log = PredictionLog(dsn, every_seconds=0.05, observer=metrics)
        log.record(loaded, rows_of(ENTITIES[:4]), np.full(4, 0.5), AS_OF, {})
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("ALTER TABLE espalier.predictions RENAME TO elsewhere")
            writing = asyncio.create_task(log.run())
            try:
                await until(lambda: caplog.records)
            finally:
                admin.execute("ALTER TABLE espalier.elsewhere RENAME TO predictions")
        log.record(loaded, rows_of(ENTITIES[4:6]), np.full(2, 0.5), AS_OF, {})
        await until(lambda: counted(metrics, "logged") == 6)
        log.close()
        await writing
        assert counted(metrics, "not_logged") == 0

    asyncio.run(body())
    assert [key for (key,) in stored("entity_id")] == list(ENTITIES[:6])
    assert {r.message for r in caplog.records} == {"predictions wait to be logged"}


def test_without_a_database_it_ends_and_counts_what_is_lost(loaded):
    async def body():
        metrics = Metrics()
        dsn = f"postgresql://espalier:x@{NOBODY}/espalier"
        log = PredictionLog(dsn, observer=metrics)
        log.record(loaded, rows_of(ENTITIES[:4]), np.full(4, 0.5), AS_OF, {})
        log.close()
        async with asyncio.timeout(10):
            await log.run()
        assert counted(metrics, "not_logged") == 4

    asyncio.run(body())


def test_a_row_tells_whose_request_and_trace_it_was(dsn, loaded, stored):
    async def body():
        log = PredictionLog(dsn)
        reader = WideRowReader(dsn)
        predictor = Predictor(reader, name="churn", sink=log, clock=lambda: AS_OF)
        predictor.model = loaded
        CURRENT.set(Caller("order-1", "shop", "a" * 32, "b" * 16))
        await predictor.predict(["u0001"])
        CURRENT.set(Caller("order-2"))
        await predictor.predict(["u0002"])
        log.close()
        await log.run()
        await predictor.close(1)
        await reader.close()

    asyncio.run(body())
    assert stored("request_id, trace_id, shadow") == [
        ("order-1", "a" * 32, False),
        ("order-2", None, False),
    ]


def partitions(dsn):
    with psycopg.connect(dsn) as connection:
        return {
            name
            for (name,) in connection.execute(
                "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
                "WHERE inhparent = 'espalier.predictions'::regclass"
            )
        }


def write(dsn, loaded, at, keys=ENTITIES[:4], **options):
    async def body():
        metrics = Metrics()
        log = PredictionLog(dsn, observer=metrics, **options)
        log.record(loaded, rows_of(keys), np.full(len(keys), 0.5), at, {})
        log.record(loaded, rows_of(keys), np.full(len(keys), 0.5), at, {}, shadow=True)
        log.close()
        await log.run()
        return metrics

    return asyncio.run(body())


def test_a_sample_is_of_the_share_asked_and_alike_for_the_challenger(dsn, loaded, stored):
    metrics = write(dsn, loaded, AS_OF, ENTITIES, sample=0.3)
    rows = stored("entity_id, shadow")
    served, shadowed = ({key for key, is_shadow in rows if is_shadow is s} for s in (False, True))
    assert served == shadowed
    assert 50 < len(served) < 130
    assert counted(metrics, "logged") == 2 * len(served)
    assert counted(metrics, "not_sampled") == 2 * (len(ENTITIES) - len(served))
    assert counted(metrics, "not_logged") == 0


def test_months_are_made_ahead_and_old_ones_dropped(dsn, loaded, stored):
    def clock():
        return datetime(2031, 12, 20, tzinfo=UTC)

    for month in (9, 10, 11, 12):
        write(dsn, loaded, datetime(2031, month, 30, 23, 59, tzinfo=UTC), clock=clock)
    made = partitions(dsn)
    assert {f"predictions_2031_{month:02}" for month in (9, 10, 11, 12)} < made
    assert "predictions_2032_01" in made
    write(dsn, loaded, clock(), clock=clock, retention_days=30)
    # October ended 50 days ago, November 19.
    assert made - partitions(dsn) >= {
        "predictions_2031_09",
        "predictions_2031_10",
    }
    assert "predictions_2031_11" in partitions(dsn)
    months = {served_at.month for (served_at,) in stored("served_at")}
    assert months == {11, 12}


def test_a_reader_of_an_old_month_does_not_hold_writers_back(dsn, loaded, stored):
    def clock():
        return datetime(2035, 6, 20, tzinfo=UTC)

    write(dsn, loaded, datetime(2035, 1, 5, tzinfo=UTC), clock=clock)
    with psycopg.connect(dsn) as reader:
        reader.execute("SELECT count(*) FROM espalier.predictions").fetchone()
        metrics = write(dsn, loaded, clock(), clock=clock, retention_days=30)
        assert counted(metrics, "logged") == 8
    assert "predictions_2035_01" in partitions(dsn)


def test_rows_of_no_month_move_when_it_is_made(dsn, stored):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO espalier.predictions (served_at, project, model_version, entity_id, "
            "score, prediction, features) VALUES ('2040-02-29 23:59:59+00', 'p', '1', 'e', "
            "0.5, 1, '{}'), ('2040-03-01 00:00:00+00', 'p', '1', 'e', 0.5, 1, '{}')"
        )
        make = "SELECT espalier.make_predictions_month('2040-02-01')"
        assert connection.execute(make).fetchone() == (True,)
        assert connection.execute(make).fetchone() == (False,)
        where = (
            "SELECT relname FROM espalier.predictions AS row "
            "JOIN pg_class ON pg_class.oid = row.tableoid ORDER BY served_at"
        )
        assert [name for (name,) in connection.execute(where)] == [
            "predictions_2040_02",
            "predictions_other",
        ]


def test_a_write_whose_commit_is_in_doubt_is_looked_up(dsn, loaded, stored):
    keys = ENTITIES[:4]
    batches = [Served(loaded, rows_of(keys), np.full(4, 0.5), AS_OF, {})]
    writer = LogWriter(dsn, sample=1, retention_days=0)
    result = writer.write(batches, AS_OF)
    ((committed,),) = set(stored("xmin::text"))
    with psycopg.connect(dsn) as connection:
        (aborted,) = connection.execute("SELECT pg_current_xact_id()::text").fetchone() or ("",)
        connection.rollback()
        # After a crash another transaction may have the number.
        (another,) = connection.execute("SELECT pg_current_xact_id()::text").fetchone() or ("",)
    # As after a connection that was lost at the commit; the last one is of another database.
    for number, rows in ((committed, 4), (aborted, 8), (another, 12), ("4000000000", 16)):
        writer._doubt = _Doubt(number, batches, result)
        writer.close()
        assert writer.write(batches, AS_OF) == result
        assert len(stored("entity_id")) == rows
    writer.close()


def test_rows_that_the_database_cannot_take_do_not_hold_up_others(dsn, loaded, stored, caplog):
    async def body():
        metrics = Metrics()
        log = PredictionLog(dsn, observer=metrics, every_seconds=0.05)
        writing = asyncio.create_task(log.run())
        log.record(loaded, rows_of(ENTITIES[:2]), np.full(2, 0.5), AS_OF, {"u0000": Caller("a\0b")})
        await until(lambda: counted(metrics, "not_logged"))
        log.record(loaded, rows_of(ENTITIES[2:4]), np.full(2, 0.5), AS_OF, {})
        log.close()
        await writing
        assert (counted(metrics, "not_logged"), counted(metrics, "logged")) == (2, 2)

    asyncio.run(body())
    assert [key for (key,) in stored("entity_id")] == ["u0002", "u0003"]
    assert "predictions cannot be logged" in [record.message for record in caplog.records]


def test_of_what_is_dropped_only_what_was_served_counts(dsn, loaded, stored):
    async def body():
        metrics = Metrics()
        log = PredictionLog(dsn, max_rows=1, observer=metrics)
        log.record(loaded, rows_of(ENTITIES[:3]), np.array([0.5, np.nan, 0.5]), AS_OF, {})
        assert counted(metrics, "not_logged") == 2

    asyncio.run(body())


def test_workers_that_begin_a_month_at_once_do_not_trip_over_each_other(
    dsn, loaded, stored, caplog
):
    at = datetime(2045, 7, 1, tzinfo=UTC)

    def begin():
        write(dsn, loaded, at)

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [record.problem for record in caplog.records] == []
    assert len(stored("entity_id")) == 6 * 8


@pytest.mark.parametrize("is_empty", [True, False])
def test_what_was_logged_before_the_migration_is_kept(is_empty):
    with embedded.temporary() as server, connect(server.dsn()) as connection:
        older = [m for m in migrate.packaged() if m.number < 8]
        migrate.migrate(connection, older)
        if not is_empty:
            connection.execute(
                "INSERT INTO espalier.predictions SELECT day, 'p', '1', 'e', 0.5, 1, day, '{1,2}' "
                "FROM generate_series('2024-11-15'::timestamptz, '2025-02-15', '1 month') AS day"
            )
            connection.commit()
        migrate.migrate(connection)
        kept = connection.execute(
            "SELECT count(*), bool_or(shadow), count(request_id) FROM espalier.predictions"
        ).fetchone()
        assert kept == ((0, None, 0) if is_empty else (4, False, 0))
        made = [
            connection.execute("SELECT espalier.make_predictions_month(%s)", [day]).fetchone()
            for day in ("2025-01-01", "2025-02-28", "2025-03-01")
        ]
        # February was in the old table, and so is what came before it.
        assert made == [(is_empty,), (is_empty,), (True,)]
        connection.execute(
            "INSERT INTO espalier.predictions (served_at, project, model_version, entity_id, "
            "score, prediction, features) "
            "SELECT unnest(ARRAY['2025-02-28', '2025-03-01']::timestamptz[]), 'p', '1', 'e', "
            "0.5, 1, '{}'"
        )
        drop = "SELECT espalier.drop_predictions_before('2025-03-01')"
        assert connection.execute(drop).fetchone() == ((2,) if is_empty else (1,))
        assert connection.execute("SELECT count(*) FROM espalier.predictions").fetchone() == (1,)
