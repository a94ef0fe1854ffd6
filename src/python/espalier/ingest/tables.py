"""A project's tables in PostgreSQL, as its declaration says, and the rows that snapshots add."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import LiteralString

from psycopg import sql

from espalier.contract import Column, ColumnType, Table
from espalier.errors import ConfigurationError
from espalier.ingest import snapshot_reference
from espalier.ingest.staging import LINE, SCHEMA, Staging
from espalier.postgres.connect import Connection
from espalier.project import Project

KNOWN_AT, SNAPSHOT_ID = "known_at", "snapshot_id"
_RESERVED_SCHEMAS = frozenset(
    {"espalier", "feast", "online", "staging", "public", "information_schema"}
)
# As format_type writes them.
CATALOG_NAMES = {ColumnType.TIMESTAMP: "timestamp with time zone"}

# Both is done again when the rows are there, before anyone else sees them.
_BEFORE_ALL: LiteralString = (
    "ALTER TABLE {target} DROP CONSTRAINT {primary_key}, DISABLE TRIGGER {of_a_snapshot}"
)
_AFTER_ALL: LiteralString = (
    "ALTER TABLE {target} ADD CONSTRAINT {primary_key} PRIMARY KEY ({key}, {snapshot}), "
    "ENABLE TRIGGER {of_a_snapshot}"
)
_ADD_ALL: LiteralString = """
    INSERT INTO {target} ({columns}, {known_at}, {snapshot})
    SELECT {columns}, {known}, {snapshot_id} FROM {staged}
"""
_ADD_CHANGED: LiteralString = """
    INSERT INTO {target} ({columns}, {known_at}, {snapshot})
    SELECT {new_columns}, new.{known_at}, {snapshot_id}
    FROM (SELECT *, {known} AS {known_at} FROM {staged}) AS new LEFT JOIN (
        SELECT DISTINCT ON (asked.{line}) asked.{line}, {stored_columns}
        FROM (SELECT {line}, {key}, {known} AS {known_at} FROM {staged}) AS asked
            JOIN {target} AS stored
            ON {same_key} AND stored.{known_at} <= asked.{known_at}
        ORDER BY asked.{line}, stored.{known_at} DESC, stored.{snapshot} DESC
    ) AS current USING ({line})
    WHERE current.{line} IS NULL OR ROW({current_columns}) IS DISTINCT FROM ROW({new_columns})
"""


def check_names(project: Project) -> None:
    """Refuse names that collide with ours.

    Raises:
        ConfigurationError: the project, a table or a column has a reserved name.
    """
    if project.name in _RESERVED_SCHEMAS or project.name.startswith("pg_"):
        raise ConfigurationError(
            f"project name {project.name} is a schema of ours or of PostgreSQL",
            fix="name it otherwise",
        )
    names = {table.name for table in project.tables}
    for table in project.tables:
        if f"{table.name}_latest" in names:
            raise ConfigurationError(
                f"table {table.name}_latest has the name of the view over {table.name}",
                fix="name it otherwise",
            )
        for column in table.columns:
            if column.name in (KNOWN_AT, SNAPSHOT_ID):
                raise ConfigurationError(
                    f"column {table.name}.{column.name} has the name of one that ingest adds",
                    fix="name it otherwise",
                )


def ensure(connection: Connection, project: Project) -> None:
    """Make the project's schema, tables and views that are not there yet.

    Raises:
        ConfigurationError: a table is there with other columns or another key than declared.
    """
    connection.execute(
        sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(project.name))
    )
    for table in project.tables:
        found = stored_columns(connection, project, table)
        if found:
            _compare(connection, project, table, found)
        else:
            _create(connection, project, table)
        snapshot_reference.require(connection, project.name, table.name)


def stored_tables(connection: Connection, project: Project) -> dict[str, tuple[str, str]]:
    """Schema and name of each declared table that is already there."""
    return {
        table.name: (project.name, table.name)
        for table in project.tables
        if stored_columns(connection, project, table)
    }


def add_rows(
    connection: Connection,
    project: Project,
    table: Table,
    place: Staging,
    *,
    snapshot_id: int,
    as_of: date,
    backfill: bool,
) -> int:
    """Store the staged rows that differ from what was known of their key; give how many.

    In a backfill, a row with an event time was known when it happened (a label when its horizon
    had passed); every other row at midnight UTC of `as_of`. A row is compared with the newest
    version of its key that was known by then.
    """
    names = [c.name for c in table.columns]
    target = sql.Identifier(project.name, table.name)
    parts = {
        "line": sql.Identifier(LINE),
        "known_at": sql.Identifier(KNOWN_AT),
        "snapshot": sql.Identifier(SNAPSHOT_ID),
        "snapshot_id": sql.Literal(snapshot_id),
        "target": target,
        "primary_key": sql.Identifier(_key_name(table)),
        "of_a_snapshot": sql.Identifier(snapshot_reference.TRIGGER),
        "staged": sql.Identifier(SCHEMA, place.typed(table)),
        "known": _known_at(project, table, as_of, backfill=backfill),
        "columns": sql.SQL(", ").join(sql.Identifier(name) for name in names),
        "key": sql.SQL(", ").join(sql.Identifier(name) for name in table.key),
        "same_key": sql.SQL(" AND ").join(
            sql.SQL("stored.{key} = asked.{key}").format(key=sql.Identifier(name))
            for name in table.key
        ),
        "new_columns": _qualified("new", names),
        "stored_columns": _qualified("stored", names),
        "current_columns": _qualified("current", names),
    }
    if _has_rows(connection, target):
        stored = connection.execute(sql.SQL(_ADD_CHANGED).format(**parts)).rowcount
    else:
        # The first rows have nothing to be compared with, are all of the snapshot at hand, and an
        # index is built of a whole in half the time.
        connection.execute(sql.SQL(_BEFORE_ALL).format(**parts))
        stored = connection.execute(sql.SQL(_ADD_ALL).format(**parts)).rowcount
        connection.execute(sql.SQL(_AFTER_ALL).format(**parts))
    connection.execute(sql.SQL("ANALYZE {}").format(target))
    return stored


def _known_at(project: Project, table: Table, as_of: date, *, backfill: bool) -> sql.Composable:
    if not backfill or table.event_time is None:
        return sql.SQL("{}::timestamp AT TIME ZONE 'UTC'").format(sql.Literal(as_of))
    event_time = sql.Identifier(table.event_time)
    known: sql.Composable = event_time
    if table.column(table.event_time).type is ColumnType.DATE:
        known = sql.SQL("({}::timestamp AT TIME ZONE 'UTC')").format(event_time)
    if table.name == project.label.table:
        known = sql.SQL("{} + {}").format(known, sql.Literal(project.label.horizon))
    return known


def _key_name(table: Table) -> str:
    # As PostgreSQL names it.
    return f"{table.name}_pkey"


def _has_rows(connection: Connection, target: sql.Identifier) -> bool:
    row = connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(target)).fetchone()
    return row is not None and bool(row[0])


def _qualified(alias: str, names: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(alias, name) for name in names)


def _create(connection: Connection, project: Project, table: Table) -> None:
    target = sql.Identifier(project.name, table.name)
    key = sql.SQL(", ").join(sql.Identifier(name) for name in table.key)
    columns = sql.SQL(", ").join(
        sql.SQL("{} {} {}").format(
            sql.Identifier(c.name),
            sql.SQL(c.type.value),
            sql.SQL("" if may_be_null(table, c) else "NOT NULL"),
        )
        for c in table.columns
    )
    known_at, snapshot_id = sql.Identifier(KNOWN_AT), sql.Identifier(SNAPSHOT_ID)
    connection.execute(
        sql.SQL(
            "CREATE TABLE {} ({}, {} timestamptz NOT NULL, "
            "{} bigint NOT NULL, CONSTRAINT {} PRIMARY KEY ({}, {}))"
        ).format(
            target,
            columns,
            known_at,
            snapshot_id,
            sql.Identifier(_key_name(table)),
            key,
            snapshot_id,
        )
    )
    connection.execute(
        sql.SQL(
            "CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON {} "
            "FOR EACH STATEMENT EXECUTE FUNCTION espalier.refuse_change()"
        ).format(target)
    )
    make_latest(connection, project, table)
    comment(connection, project, table)


def make_latest(connection: Connection, project: Project, table: Table) -> None:
    """Make the view of the newest version of each key, or add the table's new columns to it."""
    connection.execute(
        sql.SQL(
            "CREATE OR REPLACE VIEW {} AS SELECT DISTINCT ON ({key}) * FROM {} "
            "ORDER BY {key}, {} DESC, {} DESC"
        ).format(
            sql.Identifier(project.name, f"{table.name}_latest"),
            sql.Identifier(project.name, table.name),
            sql.Identifier(KNOWN_AT),
            sql.Identifier(SNAPSHOT_ID),
            key=sql.SQL(", ").join(sql.Identifier(name) for name in table.key),
        )
    )


def comment(connection: Connection, project: Project, table: Table) -> None:
    """Tell PostgreSQL what each column means."""
    for column in table.columns:
        connection.execute(
            sql.SQL("COMMENT ON COLUMN {} IS {}").format(
                sql.Identifier(project.name, table.name, column.name),
                sql.Literal(column.description),
            )
        )


def may_be_null(table: Table, column: Column) -> bool:
    """Whether the stored column may be null."""
    return column.nullable and column.name not in (*table.key, table.event_time)


def stored_columns(
    connection: Connection, project: Project, table: Table
) -> Mapping[str, tuple[str, bool]]:
    """Type and nullability of each column of the table; empty when it is not there."""
    rows = connection.execute(
        """
        SELECT a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
            JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped
        """,
        [project.name, table.name],
    ).fetchall()
    return {name: (kind, nullable) for name, kind, nullable in rows}


def _compare(
    connection: Connection, project: Project, table: Table, found: Mapping[str, tuple[str, bool]]
) -> None:
    declared = {
        c.name: (CATALOG_NAMES.get(c.type, c.type.value), may_be_null(table, c))
        for c in table.columns
    }
    declared[KNOWN_AT] = (CATALOG_NAMES[ColumnType.TIMESTAMP], False)
    declared[SNAPSHOT_ID] = ("bigint", False)
    differences = [f"it lacks {name}" for name in declared if name not in found]
    differences += [f"it has {name}, not declared" for name in found if name not in declared]
    differences += [
        f"{name} is {_says(found[name])}, declared {_says(declared[name])}"
        for name in declared
        if name in found and found[name] != declared[name]
    ]
    key = stored_key(connection, project, table)
    if key != {*table.key, SNAPSHOT_ID}:
        differences.append(
            f"its key is {', '.join(sorted(key - {SNAPSHOT_ID}))}, "
            f"declared {', '.join(sorted(table.key))}"
        )
    if differences:
        raise ConfigurationError(
            f"table {project.name}.{table.name} is not as declared: {'; '.join(differences)}",
            fix="restore the declaration, or name a new table in it",
        )


def _says(column: tuple[str, bool]) -> str:
    kind, nullable = column
    return f"{kind}{'' if nullable else ' not null'}"


def stored_key(connection: Connection, project: Project, table: Table) -> set[str]:
    """The columns of the table's primary key."""
    rows = connection.execute(
        """
        SELECT a.attname
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
            JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
        WHERE i.indisprimary AND n.nspname = %s AND c.relname = %s
        """,
        [project.name, table.name],
    ).fetchall()
    return {name for (name,) in rows}
