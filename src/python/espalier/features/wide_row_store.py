"""A Feast online store on PostgreSQL that keeps one typed row per entity.

Feast's own PostgreSQL store keeps one protobuf row per entity and feature. Here a feature view is
one table (see `layout`) that any program can read by a plain SELECT. In feature_store.yaml:

    online_store:
      type: espalier.features.wide_row_store.WideRowOnlineStore
      host: ...

A row is replaced only by one whose event is as new or newer, and of the same event by one that
became known as late or later: rows that arrive late or twice never turn the store back.

A row older than its view's ttl is answered with the status OUTSIDE_MAX_AGE, which Feast has for it
and its own PostgreSQL store does not give; with `hide_expired` it is as if it were not there.
"""

# ruff: noqa: ARG002, FBT001, PLR0917  # Feast's interface has these arguments

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import psycopg
from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.repo_config import FeastConfigBaseModel
from psycopg import sql
from psycopg.conninfo import make_conninfo

from espalier.errors import BadData, ConfigurationError
from espalier.features import wide_row_schema
from espalier.features.layout import table_name
from espalier.features.wide_row_read import AsyncReader, Read, Reader, Request, request
from espalier.features.wide_row_table import APPLY, Row, Table, table_of
from espalier.postgres.connect import Connection, connect, unreachable


class WideRowOnlineStoreConfig(FeastConfigBaseModel):
    """Where the database is; what is left out is libpq's default.

    `host` is an address or the folder of a Unix socket. `conninfo` holds further libpq parameters,
    as `sslmode=require`. With `hide_expired` a row that is older than its view's ttl, by the
    database's clock, is not given.
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
    hide_expired: bool = False

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
        self._reader = Reader()
        self._async_reader: AsyncReader | None = None

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Reads and writes."""
        return SupportedAsyncMethods(read=True, write=True)

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
        whose join keys change starts empty. Those who read and write meanwhile, or afterwards by
        the definitions of before, go on: what they name and the table has no more reads as null.

        Raises:
            ConfigurationError: a view cannot be kept in a table.
            DependencyUnreachable: PostgreSQL does not answer.
        """
        keep = [table_of(config.project, view) for view in tables_to_keep]
        gone = [table_name(config.project, view.name) for view in tables_to_delete]
        with _errors():
            wide_row_schema.apply(config.online_store.dsn(), keep, gone)

    def teardown(
        self,
        config: RepoConfig,
        tables: Sequence[FeatureView],
        entities: Sequence[Entity],
    ) -> None:
        """Drop the views' tables."""
        with _errors():
            wide_row_schema.apply(
                config.online_store.dsn(),
                [],
                # Feast names views too that were never kept online.
                [table_name(config.project, view.name) for view in tables],
            )
        self.disconnect()

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
            ConfigurationError: the view's table is not there or lacks a column.
            DependencyUnreachable: PostgreSQL does not answer.
        """
        declared = table_of(config.project, table)
        if data:
            with _writing(config, declared) as (connection, target):
                connection.execute(target.create_batch())
                with connection.cursor().copy(target.copy_batch()) as copy:
                    copy.set_types(target.copy_types())
                    for number, row in enumerate(data):
                        copy.write_row(target.encode(number, row))
                connection.execute(target.upsert())
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """As `online_write_batch`, in a thread: what it does most of the time is to encode."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def write_query(self, config: RepoConfig, table: FeatureView, query: str) -> bool:
        """Write what a query in this database gives, without taking it out.

        The query gives the join keys, the features, and the two times by the names that the view's
        source has for them. False, and nothing is written, if any column's type is not the table's
        own, since a conversion might change values, or if one holds lists, in which PostgreSQL
        allows what Feast does not.

        Raises:
            ConfigurationError: the view's table is not there or lacks a column.
            DependencyUnreachable: PostgreSQL does not answer.
        """
        declared = table_of(config.project, table)
        source = table.batch_source
        assert source is not None, "its query was made of it"
        if declared.holds_lists:
            return False
        with _writing(config, declared) as (connection, target):
            batch = target.as_batch(query, source.timestamp_field, source.created_timestamp_column)
            if _column_types(connection, batch) != _column_types(connection, target.rows()):
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

        A feature that the table does not have (yet, or any more) is null.

        Raises:
            ConfigurationError: the view's table is not there or has other join keys.
            DependencyUnreachable: PostgreSQL does not answer.
        """
        asked = _request(config, table, entity_keys, requested_features)
        with _errors():
            return self._reader.read(config.online_store.dsn(), asked)

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Read]:
        """As `online_read`, on a connection of the running loop's own."""
        asked = _request(config, table, entity_keys, requested_features)
        reader = self._async_reader
        if reader is None or reader.loop is not asyncio.get_running_loop():
            reader = self._async_reader = AsyncReader()
        with _errors():
            return await reader.read(config.online_store.dsn(), asked)

    def disconnect(self) -> None:
        """Close the connection of the reads; the next read opens another."""
        self._reader.close()

    async def close(self) -> None:
        """Close the connections of the reads, as Feast's server asks at its end."""
        self.disconnect()
        reader = self._async_reader
        if reader is not None and reader.loop is asyncio.get_running_loop():
            await reader.close()

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: list[tuple[FeatureView, list[str]]],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """Feast's own, then the status of what is older than its view's ttl."""
        before = len(online_features_response.results)
        super()._read_features_per_fv(
            config,
            grouped_refs,
            join_key_values,
            entity_name_to_join_key_map,
            online_features_response,
            full_feature_names,
            include_feature_view_version_metadata,
        )
        _mark_expired(online_features_response, before, grouped_refs)

    async def _read_features_per_fv_async(
        self,
        config: RepoConfig,
        grouped_refs: list[tuple[FeatureView, list[str]]],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """As `_read_features_per_fv`."""
        before = len(online_features_response.results)
        await super()._read_features_per_fv_async(
            config,
            grouped_refs,
            join_key_values,
            entity_name_to_join_key_map,
            online_features_response,
            full_feature_names,
            include_feature_view_version_metadata,
        )
        _mark_expired(online_features_response, before, grouped_refs)


def _request(
    config: RepoConfig,
    view: FeatureView,
    entity_keys: list[EntityKey],
    features: list[str] | None,
) -> Request:
    max_age = _ttl(view) if config.online_store.hide_expired else None
    return request(table_of(config.project, view), features, entity_keys, max_age)


def _mark_expired(response: GetOnlineFeaturesResponse, first: int, grouped_refs: list[Any]) -> None:
    """Give the results from `first` on, a view's after the other's, the status of their age."""
    now = time.time()
    for view, features in grouped_refs:
        results = response.results[first : first + len(features)]
        first += len(features)
        ttl = _ttl(view)
        if ttl is None or not results:
            continue
        oldest = now - ttl / timedelta(seconds=1)
        expired = [
            number
            for number, event in enumerate(results[0].event_timestamps)
            if event.seconds + event.nanos / 1e9 < oldest
        ]
        for result in results:
            for number in expired:
                if result.statuses[number] == FieldStatus.PRESENT:
                    result.statuses[number] = FieldStatus.OUTSIDE_MAX_AGE


def _ttl(view: FeatureView) -> timedelta | None:
    """How long its rows are fresh; none is for ever. On-demand views kept online have no ttl."""
    ttl: timedelta | None = getattr(view, "ttl", None)
    return ttl or None


@contextmanager
def _writing(config: RepoConfig, declared: Table) -> Iterator[tuple[Connection, Table]]:
    """A transaction of its own, and the table as it is until the transaction ends."""
    with _errors(), connect(config.online_store.dsn()) as connection:
        connection.execute(declared.hold(write=True))
        stored = wide_row_schema.shape(connection, declared)
        yield connection, declared.as_stored(stored.present, stored.removed)


def _column_types(connection: Connection, query: sql.Composed) -> list[tuple[str, int]]:
    """The names and types (their OIDs) of a query's columns."""
    cursor = connection.execute(sql.SQL("SELECT * FROM ({}) AS asked LIMIT 0").format(query))
    assert cursor.description is not None, "a SELECT has columns"
    return [(found.name, found.type_code) for found in cursor.description]


@contextmanager
def _errors() -> Iterator[None]:
    """Turn PostgreSQL's errors into ours."""
    try:
        yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise ConfigurationError(
            f"online store: {error.diag.message_primary}", fix=APPLY
        ) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise unreachable(error) from error
    except psycopg.DataError as error:
        raise BadData(f"online store: {str(error).splitlines()[0]}") from error
