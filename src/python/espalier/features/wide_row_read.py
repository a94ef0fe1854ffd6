"""Reading the wide-row store: the query of a request, and Feast's values of its answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from espalier.errors import ConfigurationError
from espalier.features import wide_row_schema
from espalier.features.wide_row_schema import Shape
from espalier.features.wide_row_table import APPLY, Table
from espalier.features.wide_row_values import Column
from espalier.postgres.connect import AsyncConnection, Connection, connect, connect_async

# The table was changed since the query was made: it lacks a column, or one has another type.
_CHANGED = (psycopg.errors.UndefinedColumn, psycopg.errors.FeatureNotSupported)

Read = tuple[datetime | None, dict[str, Value] | None]


@dataclass(frozen=True)
class Request:
    """Some features of one view's table for some entities.

    `asked` are the columns whose values are wanted, `selected` those of them that the query reads:
    one that the table does not have (any more) is null. Rows older than `max_age` are left out.
    """

    table: Table
    asked: tuple[Column, ...]
    selected: tuple[Column, ...]
    keys: tuple[tuple[Any, ...], ...]
    max_age: timedelta | None = None

    def query(self) -> bytes:
        """The SQL; the same text for the same columns, so that PostgreSQL prepares it once."""
        return self.table.select(self.selected, newer=self.max_age is not None)

    def parameters(self) -> list[Any]:
        """The query's parameters."""
        arrays: list[Any] = self.table.key_arrays(self.keys)
        return arrays if self.max_age is None else [*arrays, self.max_age]

    def narrowed(self, stored: Shape) -> Request:
        """The request to a table that was changed: only what it has is read.

        Raises:
            ConfigurationError: the table is not there or has other join keys.
        """
        if any(stored.present.get(c.name) != c.sql_type for c in self.table.keys):
            raise ConfigurationError(
                f"online store: {self.table.name} has no or other join keys than the view",
                fix=APPLY,
            )
        kept = tuple(c for c in self.asked if stored.present.get(c.name) == c.sql_type)
        return replace(self, selected=kept)

    def answer(self, rows: Sequence[tuple[Any, ...]], types: Sequence[int]) -> list[Read]:
        """Feast's answer of the query's rows, whose columns have those types (their OIDs)."""
        width = len(self.table.keys)
        read = {
            c.name: at
            for at, c in enumerate(self.selected, width + 1)
            # A table that was changed since the query was made may have another type there.
            if types[at] == c.oid
        }
        columns = [(c, read.get(c.name)) for c in self.asked]
        found = {
            row[:width]: (
                row[width],
                {c.name: c.decode(None if at is None else row[at]) for c, at in columns},
            )
            for row in rows
        }
        return [found.get(key, (None, None)) for key in self.keys]


def request(
    table: Table,
    features: Sequence[str] | None,
    entity_keys: Sequence[EntityKey],
    max_age: timedelta | None,
) -> Request:
    """A request as Feast makes it; without names it is for all features."""
    asked = tuple(table.features(features))
    keys = tuple(table.encode_key(key) for key in entity_keys)
    return Request(table, asked, asked, keys, max_age)


class Reader:
    """A connection for reads, which threads share: one reads after the other."""

    def __init__(self) -> None:
        """Connect to nothing yet."""
        self._connection: Connection | None = None
        self._turn = threading.Lock()

    def read(self, dsn: str, asked: Request) -> list[Read]:
        """What is asked, from the database at `dsn`."""
        with self._turn:
            if self._connection is None or self._connection.closed:
                self._connection = connect(dsn, autocommit=True)
            try:
                return _fetch(self._connection, asked)
            except _CHANGED:
                # What was prepared may fail again; psycopg forgets it all at the rollback.
                with self._connection.transaction(force_rollback=True):
                    self._connection.execute(asked.table.hold())
                    stored = wide_row_schema.shape(self._connection, asked.table)
                    return _fetch(self._connection, asked.narrowed(stored), prepare=False)

    def close(self) -> None:
        """Close the connection; the next read opens another."""
        with self._turn:
            if self._connection is not None:
                self._connection.close()


class AsyncReader:
    """As `Reader`, for the tasks of the event loop that made it."""

    def __init__(self) -> None:
        """Connect to nothing yet."""
        self.loop = asyncio.get_running_loop()
        self._connection: AsyncConnection | None = None
        self._turn = asyncio.Lock()

    async def read(self, dsn: str, asked: Request) -> list[Read]:
        """What is asked, from the database at `dsn`."""
        async with self._turn:
            if self._connection is None or self._connection.closed:
                self._connection = await connect_async(dsn, autocommit=True)
            try:
                return await _fetch_async(self._connection, asked)
            except _CHANGED:
                async with self._connection.transaction(force_rollback=True):
                    await self._connection.execute(asked.table.hold())
                    stored = await wide_row_schema.shape_async(self._connection, asked.table)
                    narrowed = asked.narrowed(stored)
                    return await _fetch_async(self._connection, narrowed, prepare=False)

    async def close(self) -> None:
        """Close the connection; the next read opens another."""
        async with self._turn:
            if self._connection is not None:
                await self._connection.close()


def _fetch(connection: Connection, asked: Request, *, prepare: bool | None = None) -> list[Read]:
    with connection.cursor(binary=True) as cursor:
        cursor.execute(asked.query(), asked.parameters(), prepare=prepare)
        return asked.answer(cursor.fetchall(), _types(cursor))


async def _fetch_async(
    connection: AsyncConnection, asked: Request, *, prepare: bool | None = None
) -> list[Read]:
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(asked.query(), asked.parameters(), prepare=prepare)
        return asked.answer(await cursor.fetchall(), _types(cursor))


def _types(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> list[int]:
    result = cursor.pgresult
    assert result is not None, "a SELECT has a result"
    return [result.ftype(number) for number in range(result.nfields)]
