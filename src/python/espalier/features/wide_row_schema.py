"""What tables the wide-row store has, and how they are changed under those who use them.

Who reads or writes while `feast apply` runs, or has read the registry before it, goes on: a change
waits for no lock longer than others can wait for it, and a column that goes is remembered in the
table's comment, so that a writer that still has it is told from one that is ahead of the table.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from espalier.errors import DependencyUnreachable
from espalier.features import layout
from espalier.features.wide_row_table import Table
from espalier.postgres.connect import AsyncConnection, Connection, connect

# Any constant of our own, for PostgreSQL's advisory locks.
_LOCK = 0x65737077
# While a change waits for its lock, every reader waits behind it.
_LOCK_TIMEOUT = "200ms"
_PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Shape:
    """A stored table's columns and their types, and the columns and types that it had once."""

    present: dict[str, str]
    removed: frozenset[tuple[str, str]]


_SHAPE = (
    "SELECT coalesce(json_object_agg(attname, format_type(atttypid, NULL) ORDER BY attnum)"
    " FILTER (WHERE attname IS NOT NULL), '{}'), obj_description(named.oid, 'pg_class')"
    " FROM (SELECT to_regclass(%s)::oid) AS named (oid) LEFT JOIN pg_attribute"
    " ON attrelid = named.oid AND attnum > 0 AND NOT attisdropped GROUP BY named.oid"
)


def shape(connection: Connection, table: Table) -> Shape:
    """The stored table's shape; `present` is empty when there is no table."""
    cursor = connection.execute(_SHAPE, [table.identifier.as_string(connection)])
    return _shape(cursor.fetchone())


async def shape_async(connection: AsyncConnection, table: Table) -> Shape:
    """As `shape`."""
    cursor = await connection.execute(_SHAPE, [table.identifier.as_string(connection)])
    return _shape(await cursor.fetchone())


def _shape(row: tuple[Any, ...] | None) -> Shape:
    assert row is not None, "one group"
    present, comment = row
    return Shape(present, _removed(comment))


def apply(dsn: str, keep: list[Table], gone: list[str]) -> None:
    """Make the tables fit: create, add and drop columns, drop those named in `gone`.

    Raises:
        DependencyUnreachable: PostgreSQL does not answer, or a table stays locked.
    """
    # One waits for the other that applies; each table's change stands by itself.
    with connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        _make_schema(connection)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for name in gone:
            _change(connection, name, None, deadline)
        for table in keep:
            _change(connection, table.name, table, deadline)


def _change(connection: Connection, name: str, wanted: Table | None, deadline: float) -> None:
    while True:
        try:
            with connection.transaction():
                connection.execute(
                    sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_TIMEOUT))
                )
                if wanted is None:
                    _drop(connection, name)
                else:
                    _fit(connection, wanted)
        except psycopg.errors.LockNotAvailable as error:
            if time.monotonic() > deadline:
                raise DependencyUnreachable(
                    f"table {layout.SCHEMA}.{name} stays locked",
                    fix="end the transaction that holds it, then apply again",
                ) from error
        else:
            return


def _make_schema(connection: Connection) -> None:
    # Asked first, since CREATE SCHEMA IF NOT EXISTS needs the right to create one even if it is.
    if connection.execute("SELECT to_regnamespace(%s)", [layout.SCHEMA]).fetchone() == (None,):
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(layout.SCHEMA)))


def _drop(connection: Connection, name: str) -> None:
    connection.execute(
        sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(layout.SCHEMA, name))
    )


def _fit(connection: Connection, table: Table) -> None:
    stored = shape(connection, table)
    wanted = table.types()
    same_key = _key(connection, table) == [c.name for c in table.keys] and all(
        stored.present.get(c.name) == c.sql_type for c in table.keys
    )
    if not same_key:
        _drop(connection, table.name)
        connection.execute(table.create())
        return
    dropped = {n: kind for n, kind in stored.present.items() if wanted.get(n) != kind}
    added = {n: kind for n, kind in wanted.items() if stored.present.get(n) != kind}
    if not dropped and not added:
        return
    changes = [sql.SQL("DROP COLUMN {}").format(sql.Identifier(name)) for name in dropped] + [
        sql.SQL("ADD COLUMN {} {}").format(sql.Identifier(name), sql.SQL(kind))
        for name, kind in added.items()
    ]
    connection.execute(
        sql.SQL("ALTER TABLE {} {}").format(table.identifier, sql.SQL(", ").join(changes))
    )
    removed = stored.removed | set(dropped.items())
    # Those that are there again need no memory.
    removed -= set(wanted.items())
    connection.execute(
        sql.SQL("COMMENT ON TABLE {} IS {}").format(
            table.identifier, sql.Literal(json.dumps({"removed": sorted(removed)}))
        )
    )


def _key(connection: Connection, table: Table) -> list[str] | None:
    found = connection.execute(
        "SELECT array_agg(attname::text ORDER BY array_position(indkey::int2[], attnum)) "
        "FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey) "
        "WHERE indrelid = to_regclass(%s) AND indisprimary",
        [table.identifier.as_string(connection)],
    ).fetchone()
    assert found is not None, "an aggregate has one row"
    names: list[str] | None = found[0]
    return names


def _removed(comment: str | None) -> frozenset[tuple[str, str]]:
    """What the comment remembers; one that a person wrote remembers nothing."""
    try:
        return frozenset((name, kind) for name, kind in json.loads(comment or "{}")["removed"])
    except (ValueError, KeyError, TypeError):
        return frozenset()
