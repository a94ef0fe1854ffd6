"""SQL over a project's stored history: which version of a row counts, and when it happened.

Every version of a row stays in `<project>.<table>` with `known_at`, the time it became known, and
`snapshot_id`, which grows with each ingest. Free of Feast.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time

from psycopg import sql

from espalier.contract import ColumnType, Table
from espalier.project import Project


def relation(project: Project, table: str) -> sql.Composable:
    """The table that holds all versions of the declared table's rows."""
    return sql.Identifier(project.name, table)


def as_instant(table: Table, column: str) -> sql.Composable:
    """A column of times or days as timestamptz; a day counts from its midnight in UTC."""
    name = sql.Identifier(column)
    if table.column(column).type is ColumnType.DATE:
        return sql.SQL("({}::timestamp AT TIME ZONE 'UTC')").format(name)
    return name


def comparable(table: Table, column: str, instant: sql.Composable) -> sql.Composable:
    """An instant as `column` can be compared with it by an index on that column."""
    if table.column(column).type is ColumnType.DATE:
        return sql.SQL("(({}) AT TIME ZONE 'UTC')").format(instant)
    return sql.SQL("({})").format(instant)


def midnight(day: date) -> datetime:
    """The instant at which a day counts as reached."""
    return datetime.combine(day, time(), UTC)


def feature_versions(project: Project) -> sql.Composed:
    """A query for the view's features with every version that was ever known.

    Gives the join key, event_timestamp, created_timestamp (when it became known) and the features.
    Of versions that became known at the same time (a snapshot and its revision) it gives the last,
    since Feast's point-in-time join answers with both.
    """
    table = project.table(project.view.table)
    return sql.SQL(
        # DISTINCT ON names the output's own columns: conditions on them go down into the scan.
        "SELECT DISTINCT ON ({key}, event_timestamp, created_timestamp) {key}, "
        "{event_time} AS event_timestamp, known_at AS created_timestamp, {features} "
        "FROM {relation} ORDER BY {key}, event_timestamp, created_timestamp, snapshot_id DESC"
    ).format(
        key=sql.Identifier(project.entity.join_key),
        event_time=as_instant(table, project.event_time),
        features=sql.SQL(", ").join(sql.Identifier(name) for name in project.view.features),
        relation=relation(project, table.name),
    )
