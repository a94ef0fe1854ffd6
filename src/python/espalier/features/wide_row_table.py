"""The table of one feature view in the wide-row store: its columns, and the SQL made of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from feast import FeatureView
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import FeastType
from psycopg import sql

from espalier.errors import BadData, ConfigurationError
from espalier.features import layout
from espalier.features.wide_row_values import Column, column

Fields = tuple[tuple[str, FeastType], ...]
EVENT, CREATED = "event_timestamp", "created_timestamp"
APPLY = "apply the feature definitions (feast apply), then materialize"
_FLOATS = frozenset({"real", "double precision"})
Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


def table_of(project: str, view: FeatureView) -> Table:
    """The table of a view.

    Raises ConfigurationError for a view that cannot be kept: one without an entity, or with a
    feature that has the name of one of the store's own columns.
    """
    return _table(
        project,
        view.name,
        tuple((field.name, field.dtype) for field in view.entity_columns),
        tuple((field.name, field.dtype) for field in view.features),
    )


# Every read asks for its view's table.
@lru_cache(maxsize=256)
def _table(project: str, view: str, keys: Fields, features: Fields) -> Table:
    names = [name for name, _ in (*keys, *features)]
    if not keys:
        raise ConfigurationError(
            f"feature view {view} has no entity columns",
            fix="declare the join key in its schema",
        )
    if taken := {EVENT, CREATED}.intersection(names):
        raise ConfigurationError(
            f"feature view {view} declares {taken.pop()}, which this store adds itself",
            fix="name it otherwise",
        )
    return Table(
        layout.table_name(project, view),
        [column(*field) for field in keys],
        [column(*field) for field in features],
    )


class Table:
    """One view's table, as the view declares it; see `table_of`.

    `unknown` names the columns of the stored table that the view does not declare.
    """

    def __init__(
        self,
        name: str,
        keys: Sequence[Column],
        features: Sequence[Column],
        unknown: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.identifier = sql.Identifier(layout.SCHEMA, name)
        self.keys = list(keys)
        self._features = list(features)
        self._unknown = list(unknown)
        self._selects: dict[tuple[object, ...], bytes] = {}

    @property
    def holds_lists(self) -> bool:
        """Whether any feature is a list or a set."""
        return any(c.is_array for c in self._features)

    def as_stored(self, present: Mapping[str, str], removed: Collection[tuple[str, str]]) -> Table:
        """The table for a writer whose view may be older than the stored table.

        Args:
            present: The stored table's columns and their types.
            removed: The columns and types that it had before; what a writer gives for one of them
                is dropped.

        Raises:
            ConfigurationError: the table lacks a column, and never had it.
        """
        kept = []
        for c in self._features:
            if present.get(c.name) == c.sql_type:
                kept.append(c)
            elif (c.name, c.sql_type) not in removed:
                raise ConfigurationError(
                    f'online store: column "{c.name}" of type {c.sql_type} does not exist in '
                    f"{layout.SCHEMA}.{self.name}",
                    fix=APPLY,
                )
        for key in self.keys:
            if present.get(key.name) != key.sql_type:
                raise ConfigurationError(
                    f"online store: {layout.SCHEMA}.{self.name} has other join keys than the view",
                    fix=APPLY,
                )
        known = {EVENT, CREATED, *(c.name for c in (*self.keys, *kept))}
        return Table(self.name, self.keys, kept, [name for name in present if name not in known])

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
        """Moves the batch into the table; a row is replaced only by one as new or newer.

        All values of a row are of one event: what the batch does not know of becomes null with it.
        """
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
                [
                    *(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(n)) for n in changed),
                    *(
                        sql.SQL(
                            "{0} = CASE WHEN excluded.{1} = stored.{1} THEN stored.{0} END"
                        ).format(sql.Identifier(n), sql.Identifier(EVENT))
                        for n in self._unknown
                    ),
                ]
            ),
        )

    def select(self, wanted: Sequence[Column], *, newer: bool = False) -> bytes:
        """A query for many entities; its parameters are one array per join key.

        With `newer` one more parameter is an interval: rows whose event is older are left out.
        """
        asked = (*(c.name for c in wanted), newer)
        if asked not in self._selects:
            columns = [*(c.name for c in self.keys), EVENT, *(c.name for c in wanted)]
            query = sql.SQL("SELECT {} FROM {} WHERE {}").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)),
                self.identifier,
                self._key_condition(),
            )
            if newer:
                query += sql.SQL(" AND {} >= now() - %s").format(sql.Identifier(EVENT))
            self._selects[asked] = query.as_bytes(None)
        return self._selects[asked]

    def _key_condition(self) -> sql.Composable:
        if len(self.keys) > 1:
            return sql.SQL("({}) IN (SELECT * FROM unnest({}))").format(
                _names(self.keys),
                sql.SQL(", ").join(sql.SQL(f"%s::{c.sql_type}[]") for c in self.keys),
            )
        return sql.SQL("{} = ANY(%s::{}[])").format(
            _names(self.keys), sql.SQL(self.keys[0].sql_type)
        )

    def hold(self, *, write: bool = False) -> sql.Composed:
        """Keeps the table as it is until the transaction ends; others may read and write it."""
        return sql.SQL("LOCK TABLE {} IN {} MODE").format(
            self.identifier, sql.SQL("ROW EXCLUSIVE" if write else "ACCESS SHARE")
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
