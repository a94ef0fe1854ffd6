"""Training sets and features as they were known at a time, each by one SQL statement.

Why not Feast's `get_historical_features`: by default it uses the created timestamp only to choose
between versions of a row, so a value that became known after the label's time leaks into training
unless the caller passes `filter_by_created_timestamp=True`. It also takes the labels by a table
that it fills row by row, and it costs an import of seconds. Labels and features are in one
database here, so one join does it. Where Feast is asked through our offline store, which does not
leave that choice to the caller (see `as_known_store`), both give the same; a test holds them to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, LiteralString

import pandas as pd
import psycopg
from psycopg import sql

from espalier.contract import ColumnType
from espalier.errors import ConfigurationError
from espalier.features import history
from espalier.postgres.connect import Connection
from espalier.project import Project


def training_set(connection: Connection, project: Project, *, as_of: date) -> pd.DataFrame:
    """One row per label known by `as_of`, with the features known at the label's time.

    A label's features are those with the newest event time not after the label's time and not
    older than the view's ttl then, in the version that was the last known at the label's time.

    Args:
        connection: The database.
        project: The project.
        as_of: The day, midnight UTC, by which a label must have been known.

    Returns:
        The join key, label_time, label (bool), feature_time, then the view's features in declared
        order as float64, NaN for null; times are datetime64 in UTC. Sorted by label_time, then join
        key. Labels without features are left out; `attrs["without_features"]` counts them.

    Raises:
        ConfigurationError: nothing of the project was ingested yet.
    """
    labels = project.table(project.label.table)
    query = sql.SQL(
        "WITH labels AS ("
        " SELECT DISTINCT ON ({key}, {label_column}) {key} AS entity, {label_time} AS label_time,"
        " {label} AS label FROM {labels} WHERE known_at <= %(as_of)s"
        " ORDER BY {key}, {label_column}, known_at DESC, snapshot_id DESC) "
        "SELECT entity, label_time, label, newest.* FROM labels LEFT JOIN LATERAL ("
        " SELECT {event_time}, {features} FROM {table} WHERE {key} = entity"
        " AND {event_column} <= {label_time_there} AND {event_column} >= {oldest}"
        " AND known_at <= label_time"
        " ORDER BY {event_column} DESC, known_at DESC, snapshot_id DESC LIMIT 1) AS newest ON true "
        "ORDER BY label_time, {order}"
    ).format(
        **_parts(project),
        labels=history.relation(project, labels.name),
        label=sql.Identifier(project.label.column),
        label_column=sql.Identifier(project.label.time),
        label_time=history.as_instant(labels, project.label.time),
        label_time_there=_event_bound(project, "label_time"),
        oldest=_event_bound(project, "label_time - %(ttl)s"),
    )
    rows = _fetch(connection, project, query, as_of=history.midnight(as_of), ttl=project.view.ttl)
    with_features = [row for row in rows if row[3] is not None]
    frame = _frame(with_features, project, ("label_time", "label", "feature_time"))
    frame["label"] = frame["label"].astype(bool)
    frame.attrs["without_features"] = len(rows) - len(with_features)
    return frame


def features_at(connection: Connection, project: Project, *, when: date) -> pd.DataFrame:
    """Each entity's features as known at `when`, midnight UTC, unless older than the view's ttl.

    Returns:
        The join key, feature_time, then the features as in `training_set`. Sorted by join key.

    Raises:
        ConfigurationError: nothing of the project was ingested yet.
    """
    query = sql.SQL(
        "SELECT * FROM (SELECT DISTINCT ON ({key}) {key} AS entity, {event_time}, {features}"
        " FROM {table} WHERE {event_column} <= {at} AND {event_column} >= {oldest}"
        " AND known_at <= %(at)s"
        " ORDER BY {key}, {event_column} DESC, known_at DESC, snapshot_id DESC) AS newest "
        "ORDER BY {order}"
    ).format(
        **_parts(project),
        at=_event_bound(project, "%(at)s::timestamptz"),
        oldest=_event_bound(project, "%(at)s::timestamptz - %(ttl)s"),
    )
    rows = _fetch(connection, project, query, at=history.midnight(when), ttl=project.view.ttl)
    return _frame(rows, project, ("feature_time",))


def _parts(project: Project) -> dict[str, sql.Composable]:
    table = project.table(project.view.table)
    entity = sql.Identifier("entity")
    by_bytes = table.column(project.entity.join_key).type is ColumnType.TEXT
    return {
        "key": sql.Identifier(project.entity.join_key),
        "event_column": sql.Identifier(project.event_time),
        "event_time": history.as_instant(table, project.event_time),
        "table": history.relation(project, table.name),
        "features": sql.SQL(", ").join(
            sql.SQL("{0}::double precision AS {0}").format(sql.Identifier(name))
            for name in project.view.features
        ),
        # The same order under every locale of the server.
        "order": sql.SQL('{} COLLATE "C"').format(entity) if by_bytes else entity,
    }


def _event_bound(project: Project, instant: LiteralString) -> sql.Composable:
    table = project.table(project.view.table)
    return history.comparable(table, project.event_time, sql.SQL(instant))


def _fetch(
    connection: Connection, project: Project, query: sql.Composed, **parameters: Any
) -> list[tuple[Any, ...]]:
    try:
        with connection.cursor(binary=True) as cursor:
            return cursor.execute(query, parameters).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        connection.rollback()
        raise ConfigurationError(
            f"project {project.name}: {error.diag.message_primary}",
            fix="ingest a batch first; the tables are made from the declaration then",
        ) from error


def _frame(
    rows: Sequence[tuple[Any, ...]], project: Project, middle: tuple[str, ...]
) -> pd.DataFrame:
    columns = [project.entity.join_key, *middle, *project.view.features]
    frame = pd.DataFrame(rows, columns=columns)
    types: dict[str, str] = dict.fromkeys(project.view.features, "float64")
    types |= {name: "datetime64[ns, UTC]" for name in middle if name.endswith("_time")}
    return frame.astype(types)
