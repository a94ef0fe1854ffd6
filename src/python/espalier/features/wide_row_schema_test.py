"""A table that changes under those who read and write it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import pytest
from feast import FeatureView, ValueType
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Float64, Int64, String
from psycopg import sql

from espalier.errors import ConfigurationError
from espalier.features.conftest import day
from espalier.features.testing import NUMBERS, Opened, key, n, row, view
from espalier.postgres.connect import Connection, connect

BEFORE = view({"a": Int64, "b": Int64})
AFTER = view({"b": Int64, "c": Float64})
RETYPED = view({"a": String, "b": Int64})


def test_who_has_the_definitions_of_before_reads_null_for_what_went(opened: Opened) -> None:
    opened.apply(BEFORE)
    opened.write(BEFORE, row("x", 1, a=n(1), b=n(2)))
    # Often enough for PostgreSQL to have it prepared.
    for _ in range(10):
        assert opened.read(BEFORE, key(k="x")) == [(day(1), {"a": n(1), "b": n(2)})]
    opened.apply(AFTER)
    for _ in range(10):
        assert opened.read(BEFORE, key(k="x")) == [(day(1), {"a": Value(), "b": n(2)})]
    assert opened.read(BEFORE, key(k="x"), features=["a"]) == [(day(1), {"a": Value()})]


def test_a_feature_not_applied_yet_reads_null(opened: Opened) -> None:
    opened.apply(BEFORE)
    opened.write(BEFORE, row("x", 1, a=n(1), b=n(2)))
    assert opened.read(AFTER, key(k="x")) == [(day(1), {"b": n(2), "c": Value()})]


@pytest.mark.parametrize("reads_before", [1, 10])
def test_a_retyped_feature_reads_null_by_the_definitions_of_before(
    opened: Opened, reads_before: int
) -> None:
    opened.apply(BEFORE)
    for _ in range(reads_before):
        opened.read(BEFORE, key(k="x"))
    opened.apply(RETYPED)
    opened.write(RETYPED, row("x", 1, a=Value(string_val="one"), b=n(2)))
    for _ in range(10):
        assert opened.read(BEFORE, key(k="x")) == [(day(1), {"a": Value(), "b": n(2)})]
        assert opened.read(RETYPED, key(k="x"), features=["a"]) == [
            (day(1), {"a": Value(string_val="one")})
        ]


def test_a_question_prepared_before_a_change_is_asked_anew(opened: Opened) -> None:
    """What is left of the one request is another that was prepared, of types that are no more."""
    wide = view({"a": Int64, "b": Int64, "c": Int64})
    opened.apply(wide)
    opened.write(wide, row("x", 1, a=n(1), b=n(2), c=n(3)))
    for _ in range(10):
        opened.read(wide, key(k="x"), features=["b"])
    opened.apply(view({"b": String, "c": Int64}))
    now = view({"a": Int64, "b": String, "c": Int64})
    assert opened.read(now, key(k="x"), features=["a", "b"]) == [
        (day(1), {"a": Value(), "b": Value()})
    ]


async def read_while_it_changes(opened: Opened) -> None:
    async def read(table: FeatureView) -> object:
        return await opened.store.online_read_async(opened.config, table, [key(k="x")], None)

    for _ in range(10):
        assert await read(BEFORE) == [(day(1), {"a": n(1), "b": n(2)})]
    opened.apply(RETYPED)
    for _ in range(10):
        assert await read(BEFORE) == [(day(1), {"a": Value(), "b": n(2)})]
    opened.apply(AFTER)
    for _ in range(10):
        assert await read(BEFORE) == [(day(1), {"a": Value(), "b": n(2)})]
        assert await read(AFTER) == [(day(1), {"b": n(2), "c": Value()})]
    await opened.store.close()


def test_asynchronous_readers_go_on_too(opened: Opened) -> None:
    opened.apply(BEFORE)
    opened.write(BEFORE, row("x", 1, a=n(1), b=n(2)))
    asyncio.run(read_while_it_changes(opened))


def test_a_writer_of_before_goes_on_and_leaves_no_mixture_of_events(opened: Opened) -> None:
    opened.apply(BEFORE)
    opened.apply(AFTER)
    half = Value(double_val=0.5)
    opened.write(AFTER, row("x", 1, b=n(1), c=half), row("y", 1, b=n(1), c=half))
    opened.write(BEFORE, row("x", 2, a=n(9), b=n(2)), row("y", 1, a=n(9), b=n(3)))
    assert opened.read(AFTER, key(k="x"), key(k="y")) == [
        (day(2), {"b": n(2), "c": Value()}),  # a newer event, of which c is not known
        (day(1), {"b": n(3), "c": half}),  # the same event again
    ]


def test_a_writer_that_is_ahead_of_the_table_is_refused(opened: Opened) -> None:
    opened.apply(BEFORE)
    for ahead in (AFTER, RETYPED):
        with pytest.raises(ConfigurationError, match=r'column "[ac]" of type .*feast apply'):
            opened.write(ahead, row("x", 1))


def test_what_was_removed_and_comes_back_is_written_again(opened: Opened) -> None:
    for table in (BEFORE, AFTER, RETYPED, BEFORE):
        opened.apply(table)
    opened.write(BEFORE, row("x", 1, a=n(1), b=n(2)))
    assert opened.read(BEFORE, key(k="x")) == [(day(1), {"a": n(1), "b": n(2)})]


def test_a_comment_that_a_person_wrote_is_no_obstacle(opened: Opened, database: Connection) -> None:
    opened.apply(BEFORE)
    for comment in ("what we know of x", '["removed"]', '{"removed": [1]}'):
        database.execute(sql.SQL("COMMENT ON TABLE online.p_v IS {}").format(sql.Literal(comment)))
        opened.write(BEFORE, row("x", 1, a=n(1), b=n(2)))


def test_readers_of_other_join_keys_are_told_to_apply(opened: Opened) -> None:
    opened.apply(BEFORE)
    opened.apply(view(NUMBERS, {"j": ValueType.INT64}))
    with pytest.raises(ConfigurationError, match=r"join keys.*feast apply"):
        opened.read(BEFORE, key(k="x"))
    with pytest.raises(ConfigurationError, match=r"feast apply"):
        opened.write(BEFORE, row("x", 1))


def test_several_may_apply_at_once(dsn: str, database: Connection) -> None:
    database.execute("DROP SCHEMA online")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: Opened(dsn).apply(BEFORE, view(NUMBERS, name="other")), range(4)))
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'online' ORDER BY 1"
    assert database.execute(tables).fetchall() == [("p_other",), ("p_v",)]


def test_readers_do_not_wait_for_a_change_that_waits_for_a_writer(dsn: str, opened: Opened) -> None:
    opened.apply(BEFORE)
    opened.write(BEFORE, row("x", 1, a=n(1), b=n(2)))
    with ThreadPoolExecutor(1) as pool, connect(dsn) as writer:
        writer.execute("UPDATE online.p_v SET a = 2")
        applied = pool.submit(Opened(dsn).apply, AFTER)
        waits = []
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            started = time.monotonic()
            opened.read(BEFORE, key(k="x"))
            waits.append(time.monotonic() - started)
        assert not applied.done()
        writer.commit()
        applied.result(timeout=30)
    assert max(waits) < 1.0
    assert opened.read(AFTER, key(k="x")) == [(day(1), {"b": n(2), "c": Value()})]


class Busy:
    """A thread that does one thing again and again, and keeps what was raised."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.done = 0
        self.error: BaseException | None = None
        self._work = work
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        try:
            while not self._end.is_set():
                self._work()
                self.done += 1
        except BaseException as error:  # noqa: BLE001  # the test tells it
            self.error = error

    def wait_for(self, more: int) -> None:
        """Wait until the work was done so many times more, or has failed."""
        wanted = self.done + more
        deadline = time.monotonic() + 60
        while self.done < wanted and self.error is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)


SHAPES = [
    view({"a": Int64, "b": Int64}),
    view({"a": Int64, "b": Int64, "c": Float64}),
    view({"b": Int64, "c": Float64}),
    view({"a": String, "b": Int64, "c": Float64}),
    view({"a": Array(Int64), "b": Int64}),
]


def test_readers_and_writers_never_fail_while_the_table_changes(dsn: str, opened: Opened) -> None:
    opened.apply(SHAPES[0])
    opened.write(SHAPES[0], *(row(f"k{i}", 0, a=n(i), b=n(i)) for i in range(20)))
    keys = [key(k=f"k{i}") for i in range(20)]
    events = iter(range(1, 10**6))
    reading, writing = Opened(dsn), Opened(dsn)

    def read() -> None:
        for table in SHAPES:
            for number, (event, values) in enumerate(reading.read(table, *keys)):
                assert event is not None
                assert values is not None
                assert values["b"] == n(number)

    def write() -> None:
        table: FeatureView = SHAPES[0]
        event = next(events)
        writing.write(table, *(row(f"k{i}", event / 1e4, a=n(i), b=n(i)) for i in range(20)))

    with Busy(read) as reader, Busy(write) as writer:
        for shape in [*SHAPES[1:], *SHAPES, SHAPES[0]]:
            opened.apply(shape)
            reader.wait_for(3)
            writer.wait_for(3)
    reading.store.disconnect()
    assert reader.error is None, reader.error
    assert writer.error is None, writer.error
    assert opened.read(SHAPES[0], key(k="k7"), features=["b"])[0][1] == {"b": n(7)}
