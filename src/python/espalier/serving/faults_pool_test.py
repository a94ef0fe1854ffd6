"""A database without a connection for us, and fewer connections than reads at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack

import httpx
import psycopg
import pytest

from espalier.errors import FeaturesUnavailable
from espalier.serving.reader import WideRowReader
from espalier.serving.testing import ENTITIES, create_online_table
from espalier.serving.testing_database import Database
from espalier.serving.testing_load import unaccounted, under_load
from espalier.serving.testing_server import serving

ALL = 12
OURS = "espalier-serving"


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    folder = tmp_path_factory.mktemp("database")
    with Database(folder, max_connections=str(ALL)) as database:
        create_online_table(database.dsn)
        yield database


def take_all(database, stack):
    """Open connections until there are no more."""
    taken = []

    def take():
        while True:
            taken.append(stack.enter_context(psycopg.connect(database.dsn, autocommit=True)))

    with pytest.raises(psycopg.OperationalError, match="too many clients"):
        take()
    return taken


def test_others_that_take_all_connections_cost_nothing_that_is_open(database, registry, tmp_path):
    with serving(database.dsn, registry.uri, tmp_path) as running:
        running.until(running.is_ready)
        with under_load(running) as load, ExitStack() as others:
            load.until_served(200)
            ours = f"SELECT 1 FROM pg_stat_activity WHERE application_name = '{OURS}'"
            load.until(lambda: len(database.execute(ours)) > 1)
            admin, *_ = take_all(database, others)
            # One that ends now cannot be replaced: the load is served by those that are left.
            ended = admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE application_name = %s LIMIT 1",
                [OURS],
            ).fetchall()
            assert ended == [(True,)]
            take_all(database, others)
            load.until_served(300)
            assert running.is_ready()
        load.tell("others hold all of PostgreSQL's connections")
        assert load.counts().lost == ()
        assert not load.counts().refused
        running.until(lambda: unaccounted(running) == 0)


def test_a_server_that_finds_no_connection_serves_when_there_is_one(database, registry, tmp_path):
    with ExitStack() as others:
        take_all(database, others)
        with serving(database.dsn, registry.uri, tmp_path) as running:
            running.until(lambda: "too many clients" in running.ready_text())
            with under_load(running) as load:
                load.until(lambda: load.counts().refused["UNAVAILABLE"] > 500)
                assert load.counts().served == 0
                others.close()
                load.until_served(200)
            load.tell("no connection left at the start, then there is")
            assert load.counts().lost == ()
            assert set(load.counts().refused) == {"UNAVAILABLE", "HTTP 503"}
            running.until(lambda: unaccounted(running) == 0)


def test_more_reads_at_once_than_connections_wait_their_turn(database, registry, tmp_path):
    async def explain(running, at_once, each):
        counts: Counter[int] = Counter()
        limits = httpx.Limits(max_connections=at_once)
        base = running.http.base_url
        async with httpx.AsyncClient(base_url=base, limits=limits, timeout=30) as client:

            async def one(number):
                for turn in range(each):
                    entity = ENTITIES[(number + turn) % len(ENTITIES)]
                    answer = await client.post("/explain", json={"user_id": entity})
                    counts[answer.status_code] += 1

            await asyncio.gather(*(one(number) for number in range(at_once)))
        return counts

    with serving(database.dsn, registry.uri, tmp_path) as running:
        running.until(running.is_ready)
        with under_load(running, batch_callers=8, batch_size=290) as load:
            load.until_served(50)
            # Each reads for itself, and all with the batches share four connections. Who waits for
            # one too long is refused, and the database does not count as away for that.
            counts = asyncio.run(explain(running, 60, 5))
            assert counts.total() == 300
            assert set(counts) <= {200, 503}
            assert counts[200] > 100
            load.until_served(50)
        load.tell("60 reads at once beside the batches, 4 connections")
        assert load.counts().lost == ()
        assert set(load.counts().refused) <= {"UNAVAILABLE", "HTTP 503"}
        assert "unreachable" not in running.log.read_text()
        assert database.connections() <= 4 + 1 + 1


def test_a_pool_in_use_is_no_database_that_is_away(database, loaded):
    async def body():
        reader = WideRowReader(database.dsn, connections=1, timeout=1.5, retry_seconds=30)
        await reader.check(loaded.source)
        with database.locked():
            reads = [reader.read(loaded.source, ["u0001"]) for _ in range(20)]
            results = await asyncio.gather(*reads, return_exceptions=True)
            assert {type(result) for result in results} == {FeaturesUnavailable}
            told = {str(result).partition(";")[0] for result in results}
            assert told == {
                "the online store cannot be read: a read took more than 1.5 s",
                "the online store cannot be read: its 1 connections were in use for 1.5 s",
            }
        # At once, not after the pause that follows a database which does not answer.
        assert (await reader.read(loaded.source, ["u0001"])).keys == ("u0001",)
        await reader.close()

    asyncio.run(body())
