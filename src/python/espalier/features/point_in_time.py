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

import numpy as np
import pandas as pd
import psycopg
from psycopg import sql

from espalier.contract import ColumnType
from espalier.errors import ConfigurationError
from espalier.features import history, labels
from espalier.features.columns import Array, Kind, read_columns
from espalier.postgres.connect import Connection
from espalier.project import Project

_KEY_KINDS: dict[ColumnType, Kind] = {ColumnType.TEXT: "text", ColumnType.INTEGER: "int8"}


def training_set(
    connection: Connection,
    project: Project,
    *,
    as_of: date,
    snapshots: Sequence[int] | None = None,
) -> pd.DataFrame:
    """One row per label known by `as_of`, with the features known at the label's time.

    A label's features are those with the newest event time not after the label's time and not
    older than the view's ttl then, in the version that was the last known at the label's time; of
    a label with a horizon of 0, which may come in one batch with its features, in the last version
    known when the label was.

    Args:
        connection: The database.
        project: The project.
        as_of: The day, midnight UTC, by which a label must have been known.
        snapshots: The ids of the only snapshots whose rows count. Without them a revision that was
            stored since changes what was known then; with them a training set can be had again.

    Returns:
        The join key, label_time, label (bool, a class's name or float64), feature_time, then the
        view's features in declared order as float64, NaN for null; times are datetime64 in UTC.
        Sorted by label_time, then join key. Labels without features are left out;
        `attrs["without_features"]` counts them.

    Raises:
        ConfigurationError: nothing of the project was ingested yet.
        BadData: a label is of no declared class.
    """
    table = project.table(project.label.table)
    at_once = not project.label.horizon
    query = sql.SQL(
        # Sorted before the join, which keeps the order: the rows are then narrow.
        "SELECT label_time, {label_value}, coalesce(newest.event_time, '-infinity'), {numbers}, entity "
        "FROM (SELECT * FROM ("
        " SELECT DISTINCT ON ({key}, {label_column}) {key} AS entity, {label_time} AS label_time,"
        " {label} AS label{labelled_at} FROM {labels} WHERE known_at <= %(as_of)s{among}"
        " ORDER BY {key}, {label_column}, known_at DESC, snapshot_id DESC) AS known "
        "WHERE label IS NOT NULL ORDER BY label_time, {order}) AS labels LEFT JOIN LATERAL ("
        " SELECT {event_time} AS event_time, {features} FROM {table} WHERE {key} = entity"
        " AND {event_column} <= {label_time_there} AND {event_column} >= {oldest}"
        " AND known_at <= {known_by}{among}"
        " ORDER BY {event_column} DESC, known_at DESC, snapshot_id DESC LIMIT 1) AS newest ON true "
        "ORDER BY label_time, {order}"
    ).format(
        **_parts(project),
        labels=history.relation(project, table.name),
        label=sql.Identifier(project.label.column),
        label_value=labels.expression(project, sql.Identifier("label")),
        label_column=sql.Identifier(project.label.time),
        label_time=history.as_instant(table, project.label.time),
        labelled_at=_first_known(project) if at_once else sql.SQL(""),
        known_by=sql.SQL("labelled_at" if at_once else "label_time"),
        label_time_there=_event_bound(project, "label_time"),
        oldest=_event_bound(project, "label_time - %(ttl)s::interval"),
        among=sql.SQL("" if snapshots is None else " AND snapshot_id = ANY(%(snapshots)s)"),
    )
    label_time, label, feature_time, *features, key = _fetch(
        connection,
        project,
        query,
        ("timestamptz", labels.KINDS[project.task], "timestamptz"),
        as_of=history.midnight(as_of),
        ttl=project.view.ttl,
        snapshots=None if snapshots is None else list(snapshots),
    )
    found = ~np.isnat(feature_time)
    frame = _frame(project, features, found)
    for name, values in (
        ("feature_time", _times(feature_time[found])),
        ("label", labels.values(project, label[found])),
        ("label_time", _times(label_time[found])),
        (project.entity.join_key, key[found]),
    ):
        frame.insert(0, name, values)
    frame.attrs["without_features"] = int(len(found) - found.sum())
    return frame


def features_at(
    connection: Connection,
    project: Project,
    *,
    when: date,
) -> pd.DataFrame:
    """Each entity's features as known at `when`, midnight UTC, unless older than the view's ttl.

    Returns:
        The join key, feature_time, then the features as in `training_set`. Sorted by join key.

    Raises:
        ConfigurationError: nothing of the project was ingested yet.
    """
    newest, parameters = newest_rows(project, project.view.features, when=when)
    query = sql.SQL(
        "SELECT event_time, {numbers}, entity FROM ({newest}) AS newest ORDER BY {order}"
    ).format(**_parts(project), newest=newest)
    feature_time, *features, key = _fetch(
        connection, project, query, ("timestamptz",), **parameters
    )
    frame = _frame(project, features)
    frame.insert(0, "feature_time", _times(feature_time))
    frame.insert(0, project.entity.join_key, key)
    return frame


def newest_rows(
    project: Project,
    features: Sequence[str],
    *,
    when: date,
    first: str | None = None,
    before: str | None = None,
) -> tuple[sql.Composed, dict[str, Any]]:
    """The query behind `features_at`, with its parameters, for all entities or some.

    It gives `entity`, `event_time` (timestamptz) and the named features as they are stored.

    `first` and `before` bound the entities' keys, as text, in the database's own order of them,
    which is that of the rows: from the one on, and up to and without the other.
    """
    query = sql.SQL(
        "SELECT DISTINCT ON ({key}) {key} AS entity, {event_time} AS event_time, {features}"
        " FROM {table} WHERE {event_column} <= {at} AND {event_column} >= {oldest}"
        " AND known_at <= %(at)s{from_first}{up_to_before}"
        " ORDER BY {key}, {event_column} DESC, known_at DESC, snapshot_id DESC"
    ).format(
        **{
            **_parts(project),
            "features": sql.SQL(", ").join(map(sql.Identifier, features)),
        },
        at=_event_bound(project, "%(at)s::timestamptz"),
        oldest=_event_bound(project, "%(at)s::timestamptz - %(ttl)s::interval"),
        from_first=_key_bound(project, ">= %(from_key)s", wanted=first is not None),
        up_to_before=_key_bound(project, "< %(to_key)s", wanted=before is not None),
    )
    return query, {
        "at": history.midnight(when),
        "ttl": project.view.ttl,
        "from_key": first,
        "to_key": before,
    }


def _parts(project: Project) -> dict[str, sql.Composable]:
    table = project.table(project.view.table)
    entity = sql.Identifier("entity")
    by_bytes = table.column(project.entity.join_key).type is ColumnType.TEXT
    return {
        "key": sql.Identifier(project.entity.join_key),
        "event_column": sql.Identifier(project.event_time),
        "event_time": history.as_instant(table, project.event_time),
        "table": history.relation(project, table.name),
        "features": _each(project, "{0}"),
        "numbers": _each(project, "coalesce({0}::double precision, 'NaN')"),
        # The same order under every locale of the server.
        "order": sql.SQL('{} COLLATE "C"').format(entity) if by_bytes else entity,
    }


def _first_known(project: Project) -> sql.Composed:
    """When the first version of a label became known: a correction of it brings no features."""
    return sql.SQL(", min(known_at) OVER (PARTITION BY {}, {}) AS labelled_at").format(
        sql.Identifier(project.entity.join_key), sql.Identifier(project.label.time)
    )


def _event_bound(project: Project, instant: LiteralString) -> sql.Composable:
    table = project.table(project.view.table)
    return history.comparable(table, project.event_time, sql.SQL(instant))


def _key_bound(project: Project, bound: LiteralString, *, wanted: bool) -> sql.Composable:
    if not wanted:
        return sql.SQL("")
    key = project.table(project.view.table).column(project.entity.join_key)
    return sql.SQL(" AND {} " + bound + "::{}").format(
        sql.Identifier(key.name), sql.SQL(key.type.value)
    )


def _each(project: Project, expression: LiteralString) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL(expression).format(sql.Identifier(name)) for name in project.view.features
    )


def _fetch(
    connection: Connection,
    project: Project,
    query: sql.Composed,
    first: tuple[Kind, ...],
    **parameters: Any,
) -> list[Array]:
    """The query's columns: those of `first`, the features and the join key."""
    key = project.table(project.view.table).column(project.entity.join_key)
    if key.type not in _KEY_KINDS:
        raise ConfigurationError(
            f"join key {key.name} of project {project.name} is {key.type.value}",
            fix="declare it as TEXT or INTEGER",
        )
    features: list[Kind] = ["float8"] * len(project.view.features)
    try:
        return read_columns(
            connection, query, (*first, *features, _KEY_KINDS[key.type]), parameters
        )
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        connection.rollback()
        raise ConfigurationError(
            f"project {project.name}: {error.diag.message_primary}",
            fix="ingest a batch first; the tables are made from the declaration then",
        ) from error


def _frame(project: Project, features: list[Array], rows: Array | None = None) -> pd.DataFrame:
    """The features, all rows or the marked ones; each column is let go once it is taken over."""
    count = len(features[0]) if rows is None else int(rows.sum())
    # A frame keeps columns of one type as one block with a row for each of them.
    block = np.empty((len(features), count))
    for number in reversed(range(len(features))):
        values = features.pop()
        block[number] = values if rows is None else values[rows]
    return pd.DataFrame(block.T, columns=list(project.view.features), copy=False)


def _times(instants: Array) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(instants.astype("datetime64[ns]")).tz_localize("UTC")
