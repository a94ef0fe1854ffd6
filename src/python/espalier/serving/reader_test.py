from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import psycopg
import pytest

from espalier.errors import FeaturesUnavailable
from espalier.postgres import embedded
from espalier.serving.reader import FeatureSource, WideRowReader
from espalier.serving.store_pool import StorePool
from espalier.serving.testing import (
    FEATURE_TIME,
    NULLED,
    STALE,
    STALE_TIME,
    create_online_table,
    features_of,
    until,
)
from espalier.testing_web import NOBODY


def using(dsn, body, **options):
    async def run():
        reader = WideRowReader(dsn, **options)
        try:
            return await body(reader)
        finally:
            await reader.close()

    return asyncio.run(run())


def test_rows_come_in_feature_order_with_nan_for_null_and_unknown_ones_absent(dsn, loaded):
    found = using(dsn, lambda r: r.read(loaded.source, ["u0007", "nobody", NULLED, STALE]))
    by_key = dict(zip(found.keys, found.matrix, strict=True))
    assert sorted(by_key) == [NULLED, STALE, "u0007"]
    np.testing.assert_array_equal(by_key["u0007"], features_of("u0007"))
    assert np.isnan(by_key[NULLED][-1])
    assert not np.isnan(by_key[NULLED][:-1]).any()
    assert found.matrix.dtype == np.float64
    times = dict(zip(found.keys, found.times, strict=True))
    assert times == {"u0007": FEATURE_TIME, NULLED: FEATURE_TIME, STALE: STALE_TIME}


def test_columns_follow_the_model_not_the_table(dsn, loaded):
    source = replace(loaded.source, features=tuple(reversed(loaded.source.features)))
    found = using(dsn, lambda r: r.read(source, ["u0007"]))
    np.testing.assert_array_equal(found.matrix[0], features_of("u0007")[::-1])


def test_no_known_entity_is_an_empty_matrix(dsn, loaded):
    found = using(dsn, lambda r: r.read(loaded.source, ["nobody"]))
    assert found.matrix.shape == (0, len(loaded.source.features))
    assert found.keys == ()


def test_a_missing_column_is_named_and_says_what_to_do(dsn, loaded):
    source = replace(loaded.source, features=("shoe_size",))
    with pytest.raises(FeaturesUnavailable, match=r"shoe_size.*materialize"):
        using(dsn, lambda r: r.check(source))


@pytest.fixture
def odd(dsn):
    """A table of other types and keys than the project's."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(
            "CREATE TABLE online.odd_view (k text PRIMARY KEY, event_timestamp timestamptz, "
            "flag boolean, number bigint, part numeric)"
        )
        try:
            yield admin, FeatureSource("odd", "view", "k", ("flag", "number", "part"))
        finally:
            admin.execute("DROP TABLE online.odd_view")


def test_any_text_is_a_key(dsn, odd):
    admin, source = odd
    keys = ['"', "\\", '\\"', "a,b", "{}", "null", " ", "ž", "'", "{", '","', "x" * 256]
    for number, key in enumerate(keys):
        admin.execute("INSERT INTO online.odd_view VALUES (%s, now(), true, %s)", [key, number])
    found = using(dsn, lambda r: r.read(source, keys))
    assert dict(zip(found.keys, found.matrix[:, 1].tolist(), strict=True)) == {
        key: number for number, key in enumerate(keys)
    }
    for number, key in enumerate(keys):
        (only,) = using(dsn, lambda r, key=key: r.read(source, [key])).matrix
        assert only[1] == number


def test_every_number_and_boolean_is_a_float(dsn, odd):
    admin, source = odd
    admin.execute(
        "INSERT INTO online.odd_view VALUES ('a', '2024-02-29 12:00:00.000001+00', true, 7, 0.25), "
        "('b', NULL, false, NULL, -1e3), ('c', 'infinity', NULL, -9007199254740991, NULL)"
    )
    found = using(dsn, lambda r: r.read(source, ["a", "b", "c"]))
    rows = {
        key: (when, *row)
        for key, when, row in zip(found.keys, found.times, found.matrix.tolist(), strict=True)
    }
    assert rows["a"] == (datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC), 1.0, 7.0, 0.25)
    np.testing.assert_equal(rows["b"], (None, 0.0, np.nan, -1000.0))
    np.testing.assert_equal(rows["c"], (None, np.nan, -9007199254740991.0, np.nan))


def test_keys_are_values_never_sql(dsn, loaded):
    evil = "'; DROP TABLE online.churn_customer_monthly; --"
    assert using(dsn, lambda r: r.read(loaded.source, [evil])).keys == ()
    assert using(dsn, lambda r: r.read(loaded.source, ["u0001"])).keys == ("u0001",)


def test_without_a_database_reads_fail_fast(loaded):
    async def body(reader):
        start = time.perf_counter()
        for _ in range(100):
            with pytest.raises(FeaturesUnavailable, match="PostgreSQL does not answer"):
                await reader.read(loaded.source, ["u0001"])
        assert time.perf_counter() - start < 20

    dsn = f"postgresql://espalier:x@{NOBODY}/espalier"
    using(dsn, body, timeout=0.5, retry_seconds=30)


async def when_found(ask, *arguments):
    """What `ask` gives once the database is found."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await ask(*arguments)
            except FeaturesUnavailable:
                await asyncio.sleep(0.01)


def test_a_database_that_comes_back_is_used_again(tmp_path, loaded, port):
    data, log = tmp_path / "data", tmp_path / "log"

    async def body():
        # The server's context manager blocks, so it is left and entered in a thread.
        running = embedded.serve(data, log=log, port=port, durable=False)
        server = await asyncio.to_thread(running.__enter__)
        reader = WideRowReader(server.dsn(), timeout=20, retry_seconds=0.1)
        try:
            create_online_table(server.dsn(), ["u0001"])
            assert (await reader.read(loaded.source, ["u0001"])).keys == ("u0001",)
            await asyncio.to_thread(running.__exit__, None, None, None)
            with pytest.raises(FeaturesUnavailable):
                await reader.read(loaded.source, ["u0001"])
            running = embedded.serve(data, log=log, port=port, durable=False)
            await asyncio.to_thread(running.__enter__)
            assert (await when_found(reader.read, loaded.source, ["u0001"])).keys == ("u0001",)
        finally:
            await reader.close()
            await asyncio.to_thread(running.__exit__, None, None, None)

    asyncio.run(body())


def test_a_connection_of_before_says_nothing_of_a_database_that_is_back(dsn):
    async def body():
        pool = StorePool(dsn, connections=2, timeout=20, retry_seconds=0.5)
        old = await pool.take()
        pool.lost("away")
        new = await when_found(pool.take)
        assert "no answer" in str(pool.lost("no answer", old))
        pool.give(old)
        pool.give(await pool.take())
        pool.lost("no answer", new)
        with pytest.raises(FeaturesUnavailable, match="does not answer"):
            await pool.take()
        pool.give(new)
        pool.give(await when_found(pool.take))
        pool.close()

    asyncio.run(body())


def test_reads_that_end_after_an_outage_leave_no_connection_too_many(dsn):
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'espalier-serving'"

    async def body(other):
        pool = StorePool(dsn, connections=2, timeout=20, retry_seconds=0.01)
        one, two = await pool.take(), await pool.take()
        pool.lost("away")
        pool.give(one)
        pool.give(await when_found(pool.take))
        pool.give(two)
        # The server notices a moment later that a connection was closed.
        await until(lambda: other.execute(ours).fetchone() == (2,))
        pool.close()

    with psycopg.connect(dsn, autocommit=True) as other:
        asyncio.run(body(other))


def test_connections_lost_in_the_pool_cost_no_caller_an_error(dsn, loaded):
    async def body(reader):
        await asyncio.gather(*[reader.read(loaded.source, ["u0001"]) for _ in range(8)])
        with psycopg.connect(dsn, autocommit=True) as admin:
            ended = admin.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE application_name = 'espalier-serving'"
            ).fetchone()
        assert ended is not None
        assert ended[0] >= 1
        found = await reader.read(loaded.source, ["u0001"])
        assert found.keys == ("u0001",)

    using(dsn, body)


def test_a_column_whose_type_changed_is_read_by_a_new_statement(dsn, loaded):
    async def body(reader):
        source = replace(loaded.source, features=("orders_30d",))
        await reader.read(source, ["u0001"])
        with psycopg.connect(dsn) as admin:
            admin.execute(
                "ALTER TABLE online.churn_customer_monthly "
                "ALTER COLUMN orders_30d TYPE double precision"
            )
        found = await reader.read(source, ["u0001"])
        assert found.matrix.shape == (1, 1)

    using(dsn, body)


def test_a_read_that_takes_too_long_is_given_up(dsn, loaded):
    async def body(reader):
        with psycopg.connect(dsn) as admin:
            admin.execute("LOCK TABLE online.churn_customer_monthly IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(FeaturesUnavailable, match="more than 1 s"):
                await reader.read(loaded.source, ["u0001"])
            admin.rollback()
        assert (await reader.read(loaded.source, ["u0001"])).keys == ("u0001",)

    using(dsn, body, timeout=1)


def test_a_caller_that_leaves_in_mid_read_leaves_a_reader_that_works(dsn, loaded):
    async def body(reader):
        with psycopg.connect(dsn) as admin:
            admin.execute("LOCK TABLE online.churn_customer_monthly IN ACCESS EXCLUSIVE MODE")
            reads = [asyncio.create_task(reader.check(loaded.source)) for _ in range(3)]
            await asyncio.sleep(0.1)
            for task in reads:
                task.cancel()
            results = await asyncio.gather(*reads, return_exceptions=True)
            assert all(isinstance(r, asyncio.CancelledError) for r in results)
            admin.rollback()
        assert (await reader.read(loaded.source, ["u0001"])).keys == ("u0001",)

    using(dsn, body, connections=1)
