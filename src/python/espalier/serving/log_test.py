from __future__ import annotations

import asyncio
from datetime import timedelta

import numpy as np
import psycopg
import pytest

from espalier.processes import free_port
from espalier.serving.core import Predictor
from espalier.serving.log import PredictionLog
from espalier.serving.metrics import Metrics
from espalier.serving.reader import FeatureRows, WideRowReader
from espalier.serving.testing import (
    AS_OF,
    ENTITIES,
    FEATURE_TIME,
    NULLED,
    expected_score,
    features_of,
)


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
        log.record(loaded, rows, np.array([0.25, np.nan]), AS_OF)
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
            log.record(loaded, rows_of(keys), np.full(len(keys), 0.5), at)
        assert counted(metrics, "not_logged") == 3
        log.close()
        log.record(loaded, rows_of(["u0009"]), np.array([0.5]), AS_OF)
        assert counted(metrics, "not_logged") == 4
        await log.run()
        assert counted(metrics, "logged") == 5

    asyncio.run(body())
    assert [key for (key,) in stored("entity_id")] == [*ENTITIES[:3], *ENTITIES[6:8]]


def test_a_write_that_fails_is_tried_again_and_nothing_is_written_twice(
    dsn, loaded, stored, caplog
):
    async def until(condition):
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  # a probe
                await asyncio.sleep(0.01)

    async def body():
        metrics = Metrics()
        log = PredictionLog(dsn, every_seconds=0.05, observer=metrics)
        log.record(loaded, rows_of(ENTITIES[:4]), np.full(4, 0.5), AS_OF)
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("ALTER TABLE espalier.predictions RENAME TO elsewhere")
            writing = asyncio.create_task(log.run())
            try:
                await until(lambda: caplog.records)
            finally:
                admin.execute("ALTER TABLE espalier.elsewhere RENAME TO predictions")
        log.record(loaded, rows_of(ENTITIES[4:6]), np.full(2, 0.5), AS_OF)
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
        dsn = f"postgresql://espalier:x@127.0.0.1:{free_port()}/espalier"
        log = PredictionLog(dsn, observer=metrics)
        log.record(loaded, rows_of(ENTITIES[:4]), np.full(4, 0.5), AS_OF)
        log.close()
        async with asyncio.timeout(10):
            await log.run()
        assert counted(metrics, "not_logged") == 4

    asyncio.run(body())
