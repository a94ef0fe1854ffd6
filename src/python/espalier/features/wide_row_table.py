"""The table of one feature view in the wide-row store: its columns, and the SQL made of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from feast import FeatureView
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from psycopg import sql

from espalier.errors import BadData, ConfigurationError
from espalier.features import layout
from espalier.features.wide_row_values import Column, column
from espalier.postgres.connect import Connection

EVENT, CREATED = "event_timestamp", "created_timestamp"
_FLOATS = frozenset({"real", "double precision"})
Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


class Table:
    """One view's table.

    Raises ConfigurationError for a view that cannot be kept: one without an entity, or with a
    feature that has the name of one of the store's own columns.
    """

    def __init__(self, project: str, view: FeatureView) -> None:
        self.name = layout.table_name(project, view.name)
        self.identifier = sql.Identifier(layout.SCHEMA, self.name)
        self.keys = [column(f.name, f.dtype) for f in view.entity_columns]
        self._features = [column(f.name, f.dtype) for f in view.features]
        if not self.keys:
            raise ConfigurationError(
                f"feature view {view.name} has no entity columns",
                fix="declare the join key in its schema",
            )
        if taken := {EVENT, CREATED} & {c.name for c in (*self.keys, *self._features)}:
            raise ConfigurationError(
                f"feature view {view.name} declares {taken.pop()}, which this store adds itself",
                fix="name it otherwise",
            )

    def features(self, names: Sequence[str] | None = None) -> list[Column]:
        """The features' columns, all or those of `names` in that order."""
        if names is None:
            return self._features
        by_name = {c.name: c for c in self._features}
        return [by_name[name] for name in names]

    def types(self) -> dict[str, str]:
        """Each column's PostgreSQL type, in the table's order."""
        return {
            **{c.name: c.sql_type for c in self.keys},
            EVENT: "timestamp with time zone",
            CREATED: "timestamp with time zone",
            **{c.name: c.sql_type for c in self._features},
        }

    def create(self) -> sql.Composed:
        """Makes the table."""
        nullable = {CREATED, *(c.name for c in self._features)}
        return sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(
            self.identifier,
            sql.SQL(", ").join(
                sql.SQL("{} {}" if name in nullable else "{} {} NOT NULL").format(
                    sql.Identifier(name), sql.SQL(kind)
                )
                for name, kind in self.types().items()
            ),
            _names(self.keys),
        )

    def create_batch(self) -> sql.Composed:
        """Makes the temporary table for a batch; it goes with the transaction."""
        return sql.SQL("CREATE TEMPORARY TABLE batch ON COMMIT DROP AS {} LIMIT 0").format(
            self.rows()
        )

    def copy_batch(self) -> sql.Composed:
        """Fills the batch."""
        return sql.SQL("COPY batch (number, {}) FROM STDIN (FORMAT BINARY)").format(self._all())

    def copy_types(self) -> list[str]:
        """PostgreSQL's types of a batch's columns."""
        return ["bigint", *self.types().values()]

    def encode(self, number: int, row: Row) -> list[Any]:
        """A row of the batch, in the order of `copy_types`."""
        key, values, event, created = row
        return [
            number,
            *self.encode_key(key),
            _utc(event),
            None if created is None else _utc(created),
            *(c.encode(values[c.name]) if c.name in values else None for c in self._features),
        ]

    def rows(self) -> sql.Composed:
        """All rows, in the form of a batch."""
        return sql.SQL("SELECT 0::bigint AS number, {} FROM {}").format(
            self._all(), self.identifier
        )

    def as_batch(self, query: str, event: str, created: str) -> sql.Composed:
        """A query's rows in the form of a batch; NaN becomes null, as Feast has it."""
        named = {EVENT: event, CREATED: created}
        columns = [
            sql.SQL("nullif({0}, 'NaN') AS {0}" if kind in _FLOATS else "{} AS {}").format(
                sql.Identifier(named.get(name, name)), sql.Identifier(name)
            )
            for name, kind in self.types().items()
        ]
        return sql.SQL("SELECT 0::bigint AS number, {} FROM ({}) AS newest").format(
            sql.SQL(", ").join(columns),
            sql.SQL(query),
        )

    def upsert(self, batch: sql.Composable | None = None) -> sql.Composed:
        """Moves the batch into the table; a row is replaced only by one as new or newer."""
        changed = [name for name in self.types() if name not in {c.name for c in self.keys}]
        return sql.SQL(
            "INSERT INTO {table} AS stored ({all}) "
            "SELECT DISTINCT ON ({keys}) {all} FROM {batch} "
            "ORDER BY {keys}, {event} DESC, {created} DESC NULLS LAST, number DESC "
            "ON CONFLICT ({keys}) DO UPDATE SET {changes} "
            "WHERE (excluded.{event}, coalesce(excluded.{created}, '-infinity')) "
            ">= (stored.{event}, coalesce(stored.{created}, '-infinity'))"
        ).format(
            table=self.identifier,
            all=self._all(),
            keys=_names(self.keys),
            batch=sql.Identifier("batch")
            if batch is None
            else sql.SQL("({}) AS batch").format(batch),
            event=sql.Identifier(EVENT),
            created=sql.Identifier(CREATED),
            changes=sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in changed
            ),
        )

    def select(self, wanted: Sequence[Column]) -> sql.Composed:
        """A query for many entities; its parameters are one array per join key."""
        return sql.SQL("SELECT {keys}, {event}{features} FROM {table} WHERE {condition}").format(
            keys=_names(self.keys),
            event=sql.Identifier(EVENT),
            features=sql.SQL("").join(
                sql.SQL(", {}").format(sql.Identifier(c.name)) for c in wanted
            ),
            table=self.identifier,
            condition=sql.SQL("({}) IN (SELECT * FROM unnest({}))").format(
                _names(self.keys),
                sql.SQL(", ").join(sql.SQL(f"%s::{c.sql_type}[]") for c in self.keys),
            )
            if len(self.keys) > 1
            else sql.SQL("{} = ANY(%s::{}[])").format(
                _names(self.keys), sql.SQL(self.keys[0].sql_type)
            ),
        )

    def encode_key(self, key: EntityKey) -> tuple[Any, ...]:
        """The join keys' values in the table's order; Feast may name them in any other."""
        values = dict(zip(key.join_keys, key.entity_values, strict=True))
        try:
            return tuple(c.encode(values[c.name]) for c in self.keys)
        except KeyError as error:
            raise BadData(f"an entity key for {self.name} lacks {error.args[0]}") from error

    def key_arrays(self, keys: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
        """The parameters of `select`."""
        return [[key[i] for key in keys] for i in range(len(self.keys))]

    def _all(self) -> sql.Composed:
        return sql.SQL(", ").join(sql.Identifier(name) for name in self.types())


def _names(columns: Sequence[Column]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(c.name) for c in columns)


def _utc(time: datetime) -> datetime:
    """Feast's contract: a time without a zone is in UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def make_schema(connection: Connection) -> None:
    """Make the schema of all online tables unless it is there."""
    # Asked first, since CREATE SCHEMA IF NOT EXISTS needs the right to create one even if it is.
    if connection.execute("SELECT to_regnamespace(%s)", [layout.SCHEMA]).fetchone() == (None,):
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(layout.SCHEMA)))


def column_types(connection: Connection, query: sql.Composed) -> list[tuple[str, int]]:
    """The names and types (their OIDs) of a query's columns."""
    cursor = connection.execute(sql.SQL("SELECT * FROM ({}) AS asked LIMIT 0").format(query))
    assert cursor.description is not None, "a SELECT has columns"
    return [(found.name, found.type_code) for found in cursor.description]


def drop(connection: Connection, table: Table) -> None:
    """Drop the table if it is there."""
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table.identifier))


def fit(connection: Connection, table: Table) -> None:
    """Create the table, or add, drop and retype columns of the one that is there."""
    present: dict[str, str] = dict(
        connection.execute(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            [table.identifier.as_string(connection)],
        ).fetchall()
    )
    key = connection.execute(
        "SELECT array_agg(attname::text ORDER BY array_position(indkey::int2[], attnum)) "
        "FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey) "
        "WHERE indrelid = to_regclass(%s) AND indisprimary",
        [table.identifier.as_string(connection)],
    ).fetchone()
    wanted = table.types()
    same_key = key == ([c.name for c in table.keys],) and all(
        present.get(c.name) == wanted[c.name] for c in table.keys
    )
    if not present or not same_key:
        drop(connection, table)
        connection.execute(table.create())
        return
    changes = [
        sql.SQL("DROP COLUMN {}").format(sql.Identifier(name))
        for name, kind in present.items()
        if wanted.get(name) != kind
    ] + [
        sql.SQL("ADD COLUMN {} {}").format(sql.Identifier(name), sql.SQL(kind))
        for name, kind in wanted.items()
        if present.get(name) != kind
    ]
    if changes:
        connection.execute(
            sql.SQL("ALTER TABLE {} {}").format(table.identifier, sql.SQL(", ").join(changes))
        )
