"""Feast's PostgreSQL offline store, held to what was known at the time asked for.

Feast's own store looks at the created timestamp only to choose between versions of a row: it
materializes a version that became known after the end of the interval, and its point-in-time join
does the same unless every caller passes `filter_by_created_timestamp=True`. Here no caller can
forget it. In feature_store.yaml:

    offline_store:
      type: espalier.features.as_known_store.AsKnownOfflineStore

Materializing an interval takes the rows that happened in it, and those that happened before but
became known in it: `materialize-incremental` does not miss late rows (feast#4133). A source whose
tag `ttl_seconds` says how long its rows are fresh gives none that is stale at the interval's end.
"""

# ruff: noqa: ARG004, FBT001, FBT002, PLR0917  # Feast's interface has these arguments

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pandas as pd
from feast import FeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres import (
    PostgreSQLOfflineStore,
    PostgreSQLOfflineStoreConfig,
)
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from psycopg import sql

TTL_TAG = "ttl_seconds"
# Early enough for any event, and PostgreSQL and Python both hold it.
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


class AsKnownOfflineStoreConfig(PostgreSQLOfflineStoreConfig):
    """The options of Feast's PostgreSQL offline store."""

    # Feast finds the store's class by this name, which its own class fixes to another.
    type: Literal["espalier.features.as_known_store.AsKnownOfflineStore"] = (
        "espalier.features.as_known_store.AsKnownOfflineStore"  # type: ignore[assignment]
    )


class AsKnownOfflineStore(PostgreSQLOfflineStore):
    """The store."""

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Each entity's newest row of the interval, as known at its end."""
        if created_timestamp_column:
            data_source = _known(
                data_source, timestamp_field, created_timestamp_column, start_date, end_date
            )
            start_date = _BEGINNING
        return PostgreSQLOfflineStore.pull_latest_from_table_or_query(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows of the interval, as known at its end."""
        if created_timestamp_column and end_date is not None:
            start = _BEGINNING if start_date is None else start_date
            data_source = _known(
                data_source, timestamp_field, created_timestamp_column, start, end_date
            )
            start_date = None
        return PostgreSQLOfflineStore.pull_all_from_table_or_query(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = True,
        **kwargs: Any,
    ) -> RetrievalJob:
        """Features as known at each entity row's time, whatever the caller asks."""
        return PostgreSQLOfflineStore.get_historical_features(
            config,
            feature_views,
            feature_refs,
            entity_df,
            registry,
            project,
            full_feature_names,
            filter_by_created_timestamp=True,
            **kwargs,
        )


def _known(
    source: DataSource, event: str, created: str, start: datetime, end: datetime
) -> PostgreSQLSource:
    """The source, less what is stale or not yet known at `end`, or was there before `start`."""
    assert isinstance(source, PostgreSQLSource)
    ttl = source.tags.get(TTL_TAG)
    oldest = _aware(end) - timedelta(seconds=float(ttl)) if ttl else _BEGINNING
    query = sql.SQL(
        "SELECT * FROM {source} WHERE {created} <= {end} AND {event} >= {oldest} "
        "AND ({event} >= {start} OR {created} > {start})"
    ).format(
        source=sql.SQL(source.get_table_query_string_with_alias("versions")),
        event=sql.Identifier(event),
        created=sql.Identifier(created),
        start=sql.Literal(_aware(start)),
        end=sql.Literal(_aware(end)),
        oldest=sql.Literal(oldest),
    )
    return PostgreSQLSource(
        name=source.name,
        query=query.as_string(None),
        timestamp_field=event,
        created_timestamp_column=created,
        field_mapping=source.field_mapping,
    )


def _aware(time: datetime) -> datetime:
    """Feast's contract: a time without a zone is in UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
