"""A project's tables in PostgreSQL, as its declaration says, and the rows that snapshots add."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from psycopg import sql

from espalier.contract import Column, ColumnType, Table
from espalier.errors import ConfigurationError
from espalier.ingest.staging import LINE, SCHEMA, Staging
from espalier.postgres.connect import Connection
from espalier.project import Project

KNOWN_AT, SNAPSHOT_ID = "known_at", "snapshot_id"
_RESERVED_SCHEMAS = frozenset(
    {"espalier", "feast", "online", "staging", "public", "information_schema"}
)
# As format_type writes them.
_CATALOG_NAMES = {ColumnType.TIMESTAMP: "timestamp with time zone"}


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
        found = _stored_columns(connection, project, table)
        if found:
            _compare(connection, project, table, found)
        else:
            _create(connection, project, table)


def stored_tables(connection: Connection, project: Project) -> dict[str, tuple[str, str]]:
    """Schema and name of each declared table that is already there."""
    return {
        table.name: (project.name, table.name)
        for table in project.tables
        if _stored_columns(connection, project, table)
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
    columns = sql.SQL(", ").join(sql.Identifier(name) for name in names)
    query = sql.SQL(
        """
        WITH new AS MATERIALIZED (
            SELECT {line}, {columns}, {known} AS {known_at} FROM {staged}
        ), current AS MATERIALIZED (
            SELECT DISTINCT ON (new.{line}) new.{line}, {stored_columns}
            FROM new JOIN {target} AS stored
                ON {same_key} AND stored.{known_at} <= new.{known_at}
            ORDER BY new.{line}, stored.{known_at} DESC, stored.{snapshot} DESC
        )
        INSERT INTO {target} ({columns}, {known_at}, {snapshot})
        SELECT {new_columns}, new.{known_at}, {snapshot_id}
        FROM new LEFT JOIN current USING ({line})
        WHERE current.{line} IS NULL OR ROW({current_columns}) IS DISTINCT FROM ROW({new_columns})
        """
    ).format(
        line=sql.Identifier(LINE),
        columns=columns,
        known=_known_at(project, table, as_of, backfill=backfill),
        known_at=sql.Identifier(KNOWN_AT),
        staged=sql.Identifier(SCHEMA, place.typed(table)),
        stored_columns=_qualified("stored", names),
        target=target,
        same_key=sql.SQL(" AND ").join(
            sql.SQL("stored.{key} = new.{key}").format(key=sql.Identifier(key)) for key in table.key
        ),
        snapshot=sql.Identifier(SNAPSHOT_ID),
        snapshot_id=sql.Literal(snapshot_id),
        new_columns=_qualified("new", names),
        current_columns=_qualified("current", names),
    )
    stored = connection.execute(query).rowcount
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


def _qualified(alias: str, names: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(alias, name) for name in names)


def _create(connection: Connection, project: Project, table: Table) -> None:
    target = sql.Identifier(project.name, table.name)
    key = sql.SQL(", ").join(sql.Identifier(name) for name in table.key)
    columns = sql.SQL(", ").join(
        sql.SQL("{} {} {}").format(
            sql.Identifier(c.name),
            sql.SQL(c.type.value),
            sql.SQL("" if _may_be_null(table, c) else "NOT NULL"),
        )
        for c in table.columns
    )
    known_at, snapshot_id = sql.Identifier(KNOWN_AT), sql.Identifier(SNAPSHOT_ID)
    connection.execute(
        sql.SQL(
            "CREATE TABLE {} ({}, {} timestamptz NOT NULL, "
            "{} bigint NOT NULL REFERENCES espalier.snapshots, PRIMARY KEY ({}, {}))"
        ).format(target, columns, known_at, snapshot_id, key, snapshot_id)
    )
    connection.execute(
        sql.SQL(
            "CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON {} "
            "FOR EACH STATEMENT EXECUTE FUNCTION espalier.refuse_change()"
        ).format(target)
    )
    connection.execute(
        sql.SQL(
            "CREATE VIEW {} AS SELECT DISTINCT ON ({key}) * FROM {} ORDER BY {key}, {} DESC, {} DESC"
        ).format(
            sql.Identifier(project.name, f"{table.name}_latest"),
            target,
            known_at,
            snapshot_id,
            key=key,
        )
    )
    for column in table.columns:
        connection.execute(
            sql.SQL("COMMENT ON COLUMN {} IS {}").format(
                sql.Identifier(project.name, table.name, column.name),
                sql.Literal(column.description),
            )
        )


def _may_be_null(table: Table, column: Column) -> bool:
    return column.nullable and column.name not in (*table.key, table.event_time)


def _stored_columns(
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
        c.name: (_CATALOG_NAMES.get(c.type, c.type.value), _may_be_null(table, c))
        for c in table.columns
    }
    declared[KNOWN_AT] = (_CATALOG_NAMES[ColumnType.TIMESTAMP], False)
    declared[SNAPSHOT_ID] = ("bigint", False)
    differences = [f"it lacks {name}" for name in declared if name not in found]
    differences += [f"it has {name}, not declared" for name in found if name not in declared]
    differences += [
        f"{name} is {_says(found[name])}, declared {_says(declared[name])}"
        for name in declared
        if name in found and found[name] != declared[name]
    ]
    key = _stored_key(connection, project, table)
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


def _stored_key(connection: Connection, project: Project, table: Table) -> set[str]:
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
