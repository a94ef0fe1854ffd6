"""A project's Feast: its definitions and its feature store, made from the declaration.

What `feature_repo/` gives to Feast's own command line, this module gives to ours. Registry,
offline and online store are all in the one PostgreSQL. Importing it imports Feast (seconds).
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from feast import Entity, FeatureStore, FeatureView, Field, RepoConfig, ValueType
from feast.data_source import DataSource
from feast.errors import FeatureViewNotFoundException
from feast.feature_view import DUMMY_ENTITY_NAME
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.infra.registry.sql import SqlRegistry
from feast.types import FeastType, Float64, Int64, String
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.exc import DBAPIError

from espalier.contract import ColumnType
from espalier.errors import ConfigurationError
from espalier.features import history, layout
from espalier.features.as_known_store import TTL_TAG
from espalier.features.wide_row_store import WideRowOnlineStore
from espalier.postgres.connect import connect, unreachable
from espalier.project import Project

_FEATURE_TYPES: dict[ColumnType, FeastType] = {
    ColumnType.INTEGER: Int64,
    ColumnType.DOUBLE: Float64,
}
_KEY_TYPES: dict[ColumnType, tuple[ValueType, FeastType]] = {
    ColumnType.TEXT: (ValueType.STRING, String),
    ColumnType.INTEGER: (ValueType.INT64, Int64),
}

# Any constant of our own, for PostgreSQL's advisory locks.
_LOCK = 0x65737066


@dataclass(frozen=True)
class Definitions:
    """What a project registers with Feast."""

    entity: Entity
    source: DataSource
    view: FeatureView

    def objects(self) -> list[Any]:
        """All of them, as `FeatureStore.apply` takes them."""
        return [self.entity, self.source, self.view]


@dataclass(frozen=True)
class Materialized:
    """What the online store holds after a materialize.

    `rows` counts the entities whose features are fresh, that is not older than the view's ttl at
    its end; `newest` is the newest event time; `seconds` is how long it took.
    """

    rows: int
    seconds: float
    newest: datetime | None


def definitions(project: Project) -> Definitions:
    """The project's Feast objects.

    Raises:
        ConfigurationError: the join key's type cannot identify an entity in Feast.
    """
    table = project.table(project.view.table)
    key = table.column(project.entity.join_key)
    if key.type not in _KEY_TYPES:
        raise ConfigurationError(
            f"join key {key.name} of project {project.name} is {key.type.value}",
            fix="declare it as TEXT or INTEGER",
        )
    value_type, key_type = _KEY_TYPES[key.type]
    entity = Entity(
        name=project.entity.name,
        join_keys=[key.name],
        value_type=value_type,
        description=project.entity.description,
    )
    source = PostgreSQLSource(
        name=f"{project.view.name}_versions",
        query=history.feature_versions(project).as_string(None),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        tags={TTL_TAG: str(project.view.ttl.total_seconds())},
        description=f"all versions of {project.name}.{table.name}, with when each became known",
    )
    features = [table.column(name) for name in project.view.features]
    view = FeatureView(
        name=project.view.name,
        entities=[entity],
        ttl=project.view.ttl,
        schema=[
            Field(name=key.name, dtype=key_type, description=key.description),
            *(
                Field(name=c.name, dtype=_FEATURE_TYPES[c.type], description=c.description)
                for c in features
            ),
        ],
        source=source,
        description=project.description,
    )
    return Definitions(entity, source, view)


def repo_config(project: Project, *, dsn: str) -> RepoConfig:
    """What feature_store.yaml says, for the database at `dsn`.

    Raises:
        ConfigurationError: `dsn` is not a connection string.
    """
    try:
        parts = {k: str(v) for k, v in conninfo_to_dict(dsn).items() if v is not None}
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"not a PostgreSQL connection string: {error}") from error
    place: dict[str, Any] = {
        "host": parts.pop("host", ""),
        "port": int(parts.pop("port", "5432")),
        "user": parts.pop("user", ""),
        "password": parts.pop("password", ""),
    }
    database = parts.pop("dbname", "")
    return RepoConfig(
        project=project.name,
        provider="local",
        registry={
            "registry_type": "sql",
            "path": "postgresql+psycopg://",
            # Given as values and not in the URL, where a password or a folder would need quoting.
            "sqlalchemy_config_kwargs": {
                "connect_args": {
                    **place,
                    "dbname": database,
                    "options": "-c search_path=feast",
                    **{k: v for k, v in parts.items() if k != "options"},
                }
            },
            "serve_features_while_materializing": True,
        },
        offline_store={
            "type": "espalier.features.as_known_store.AsKnownOfflineStore",
            **place,
            "database": database,
            "db_schema": "feast",
            "sslmode": parts.get("sslmode", "prefer"),
        },
        online_store={
            "type": "espalier.features.wide_row_store.WideRowOnlineStore",
            **place,
            "database": database,
            "conninfo": make_conninfo("", **parts),
        },
        batch_engine={"type": "espalier.features.in_database_engine.InDatabaseComputeEngine"},
        materialization={"pull_latest_features": True},
        entity_key_serialization_version=3,
    )


def open_store(project: Project, *, dsn: str) -> FeatureStore:
    """The project's feature store; its registry is read when it is first used.

    Raises:
        ConfigurationError: `dsn` is not a connection string.
    """
    return FeatureStore(config=repo_config(project, dsn=dsn))


def close(store: FeatureStore) -> None:
    """End the connections of a store that was opened here."""
    # Asking for `store.registry` would open one that was never used.
    if isinstance(store._registry, SqlRegistry):  # noqa: SLF001
        store._registry.write_engine.dispose()  # noqa: SLF001
    online = store.provider.online_store
    if isinstance(online, WideRowOnlineStore):
        online.disconnect()


def apply(project: Project, *, dsn: str) -> None:
    """Register the project's definitions and fit its online table; drop what it declares no more.

    Raises:
        DependencyUnreachable: PostgreSQL does not answer.
        ConfigurationError: a definition cannot be kept.
    """
    wanted = definitions(project)
    with _taking_turns(dsn), _quiet(project, dsn) as store:
        store.apply(
            wanted.objects(),
            objects_to_delete=_stale(store, wanted),
            partial=False,
        )


def materialize(project: Project, *, dsn: str, end: datetime) -> Materialized:
    """Bring the online store to what was known at `end`, by Feast's own materialize.

    Takes each entity's newest features that are not older than the view's ttl at `end`. Features
    that are online and newer stay.

    Args:
        project: The project; its definitions must have been applied.
        dsn: The database.
        end: The instant to materialize as of; without a zone it is in UTC.

    Raises:
        DependencyUnreachable: PostgreSQL does not answer.
        ConfigurationError: the definitions were not applied.
    """
    if end.tzinfo is None:
        end = end.replace(tzinfo=UTC)
    started = time.perf_counter()
    with _quiet(project, dsn) as store:
        store.materialize(end - project.view.ttl, end, feature_views=[project.view.name])
    seconds = time.perf_counter() - started
    with connect(dsn) as connection:
        found = connection.execute(
            sql.SQL(
                "SELECT count(*) FILTER (WHERE event_timestamp >= %s), max(event_timestamp) FROM {}"
            ).format(
                sql.Identifier(layout.SCHEMA, layout.table_name(project.name, project.view.name))
            ),
            [end - project.view.ttl],
        ).fetchone()
    assert found is not None, "an aggregate has one row"
    return Materialized(rows=found[0], seconds=seconds, newest=found[1])


def _stale(store: FeatureStore, wanted: Definitions) -> list[Any]:
    """What the registry has of the project that is declared no more."""
    keep = {wanted.entity.name, wanted.source.name, wanted.view.name, DUMMY_ENTITY_NAME}
    registered: list[Any] = [
        *store.list_entities(),
        *store.list_data_sources(),
        *store.list_feature_views(),
    ]
    return [thing for thing in registered if thing.name not in keep]


@contextmanager
def _taking_turns(dsn: str) -> Iterator[None]:
    """Wait for others that apply: Feast locks nothing, and makes its tables at first use."""
    with connect(dsn) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        yield


@contextmanager
def _quiet(project: Project, dsn: str) -> Iterator[FeatureStore]:
    """A store that prints nothing, whose connections end with the block, and with our errors."""
    store = open_store(project, dsn=dsn)
    try:
        with redirect_stdout(io.StringIO()):
            yield store
    except FeatureViewNotFoundException as error:
        raise ConfigurationError(
            f"feature view {project.view.name} is not registered",
            fix="apply the definitions first",
        ) from error
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.OperationalError):
            raise unreachable(error.orig) from error
        raise
    except psycopg.OperationalError as error:
        raise unreachable(error) from error
    finally:
        close(store)
