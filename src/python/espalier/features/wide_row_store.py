"""A Feast online store on PostgreSQL that keeps one typed row per entity.

Feast's own PostgreSQL store keeps one protobuf row per entity and feature. Here a feature view is
one table (see `layout`) that any program can read by a plain SELECT. In feature_store.yaml:

    online_store:
      type: espalier.features.wide_row_store.WideRowOnlineStore
      host: ...

A row is replaced only by one whose event is as new or newer, and of the same event by one that
became known as late or later: rows that arrive late or twice never turn the store back.
"""

# ruff: noqa: ARG002, FBT001, PLR0917  # Feast's interface has these arguments

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal

import psycopg
from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel
from psycopg.conninfo import make_conninfo

from espalier.errors import BadData, ConfigurationError
from espalier.features.wide_row_table import Row, Table, column_types, drop, fit, make_schema
from espalier.postgres.connect import Connection, connect, unreachable

_APPLY = "apply the feature definitions (feast apply), then materialize"

Read = tuple[datetime | None, dict[str, Value] | None]


class WideRowOnlineStoreConfig(FeastConfigBaseModel):
    """Where the database is; what is left out is libpq's default.

    `host` is an address or the folder of a Unix socket. `conninfo` holds further libpq parameters,
    as `sslmode=require`.
    """

    type: Literal["espalier.features.wide_row_store.WideRowOnlineStore"] = (
        "espalier.features.wide_row_store.WideRowOnlineStore"
    )
    host: str = ""
    port: int = 5432
    database: str = ""
    user: str = ""
    password: str = ""
    conninfo: str = ""

    def dsn(self) -> str:
        """The connection string."""
        named: dict[str, str | int] = {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "password": self.password,
        }
        return make_conninfo(self.conninfo, **{k: v for k, v in named.items() if v != ""})


class WideRowOnlineStore(OnlineStore):
    """The store. Reads share one connection, each write has its own."""

    def __init__(self) -> None:
        """Connect to nothing yet."""
        super().__init__()
        self._reader: Connection | None = None

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Make the tables fit the views: create, add and drop columns, drop.

        A feature that is added, or changes its type, is null until the next materialize. A view
        whose join keys change starts empty.

        Raises:
            ConfigurationError: a view cannot be kept in a table.
            DependencyUnreachable: PostgreSQL does not answer.
        """
        with _transaction(config) as connection:
            make_schema(connection)
            for view in tables_to_delete:
                drop(connection, Table(config.project, view))
            for view in tables_to_keep:
                fit(connection, Table(config.project, view))

    def teardown(
        self,
        config: RepoConfig,
        tables: Sequence[FeatureView],
        entities: Sequence[Entity],
    ) -> None:
        """Drop the views' tables."""
        with _transaction(config) as connection:
            for view in tables:
                drop(connection, Table(config.project, view))

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows; of several for one entity the newest event, then the last known, stays.

        Raises:
            BadData: a value does not fit its column; nothing was written.
            ConfigurationError: the view's table is not there or has other columns.
            DependencyUnreachable: PostgreSQL does not answer.
        """
        target = Table(config.project, table)
        if data:
            with _transaction(config) as connection:
                connection.execute(target.create_batch())
                with connection.cursor().copy(target.copy_batch()) as copy:
                    copy.set_types(target.copy_types())
                    for number, row in enumerate(data):
                        copy.write_row(target.encode(number, row))
                connection.execute(target.upsert())
        if progress:
            progress(len(data))

    def write_query(self, config: RepoConfig, table: FeatureView, query: str) -> bool:
        """Write what a query in this database gives, without taking it out.

        The query gives the join keys, the features, and the two times by the names that the view's
        source has for them. False, and nothing is written, if any column's type is not the table's
        own; a conversion might change values.

        Raises:
            ConfigurationError: the view's table is not there or has other columns.
            DependencyUnreachable: PostgreSQL does not answer.
        """
        target = Table(config.project, table)
        source = table.batch_source
        assert source is not None, "its query was made of it"
        batch = target.as_batch(query, source.timestamp_field, source.created_timestamp_column)
        with _transaction(config) as connection:
            if column_types(connection, batch) != column_types(connection, target.rows()):
                return False
            connection.execute(target.upsert(batch))
        return True

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Read]:
        """The entities' event times and features, in the order asked; (None, None) if unknown.

        Raises:
            ConfigurationError: the view's table is not there or lacks a feature.
            DependencyUnreachable: PostgreSQL does not answer.
        """
        target = Table(config.project, table)
        wanted = target.features(requested_features)
        keys = [target.encode_key(key) for key in entity_keys]
        with _errors():
            if self._reader is None or self._reader.closed:
                self._reader = connect(config.online_store.dsn(), autocommit=True)
            rows = self._reader.execute(target.select(wanted), target.key_arrays(keys)).fetchall()
        width = len(target.keys)
        found = {
            row[:width]: (
                row[width],
                {
                    f.name: f.decode(stored)
                    for f, stored in zip(wanted, row[width + 1 :], strict=True)
                },
            )
            for row in rows
        }
        return [found.get(key, (None, None)) for key in keys]

    def disconnect(self) -> None:
        """Close the connection of the reads; the next read opens another."""
        if self._reader is not None:
            self._reader.close()

    async def close(self) -> None:
        """Close the connection of the reads, as Feast's server asks at its end."""
        self.disconnect()


@contextmanager
def _transaction(config: RepoConfig) -> Iterator[Connection]:
    """A connection of its own; all or nothing of what is done with it stays."""
    with _errors(), connect(config.online_store.dsn()) as connection:
        yield connection


@contextmanager
def _errors() -> Iterator[None]:
    """Turn PostgreSQL's errors into ours."""
    try:
        yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise ConfigurationError(
            f"online store: {error.diag.message_primary}", fix=_APPLY
        ) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise unreachable(error) from error
    except psycopg.DataError as error:
        raise BadData(f"online store: {str(error).splitlines()[0]}") from error
