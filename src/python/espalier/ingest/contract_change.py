"""A changed contract as a migration: what is compatible is applied, what is not is refused.

The declared tables are compared with the ones in the database and with the contract of the newest
version in `espalier.contracts`. Where a rule is new, rows that are stored must satisfy it; a change
that would rewrite or drop what is stored is never made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from espalier.contract import Column, Table, contract_digest, contract_json
from espalier.errors import ConfigurationError
from espalier.ingest import tables
from espalier.ingest.tables import CATALOG_NAMES, KNOWN_AT, SNAPSHOT_ID
from espalier.postgres.connect import Connection
from espalier.project import Project

_KEEP = "keep it as it was, or declare the new shape as another table"
_ROW_RULES = ("minimum", "maximum", "allowed", "references", "unique")


@dataclass
class _Plan:
    """Statements that apply the change, what they change in words, and what is refused.

    `views` are the tables whose view has to show new columns.
    """

    statements: list[sql.Composed] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    views: list[Table] = field(default_factory=list)

    def refuse(self, says: str, *, fix: str) -> None:
        """Note what cannot be done, and what to do instead."""
        self.refused.append((says, fix))


def check(connection: Connection, project: Project) -> None:
    """Refuse a contract that the stored tables cannot take.

    Raises:
        ConfigurationError: says each column, from what to what, and what to do.
    """
    _plan(connection, project)


def apply(connection: Connection, project: Project, *, who: str) -> bool:
    """Bring the project's tables to the declared contract and record it; give whether it is new.

    `connection` is in the ingest's transaction, under the project's lock.

    Raises:
        ConfigurationError: as for `check`.
    """
    plan = _plan(connection, project)
    for statement in plan.statements:
        connection.execute(statement)
    # Makes what is new, and is the proof that the tables are now as declared.
    tables.ensure(connection, project)
    for table in plan.views:
        tables.make_latest(connection, project, table)
    digest = contract_digest(project.tables)
    before = _recorded(connection, project)
    if before is not None and before[1] == digest:
        return False
    for table in project.tables:
        tables.comment(connection, project, table)
    connection.execute(
        "INSERT INTO espalier.contracts (project, version, digest, contract, changes, created_by) "
        "VALUES (%s, %s, %s, %s, %s, %s)",
        [
            project.name,
            1 if before is None else before[0] + 1,
            digest,
            Jsonb(contract_json(project.tables)),
            Jsonb(plan.changes),
            who,
        ],
    )
    return True


def _recorded(
    connection: Connection, project: Project
) -> tuple[int, str, list[dict[str, Any]]] | None:
    """Version, digest and contract of the newest version."""
    row = connection.execute(
        "SELECT version, digest, contract FROM espalier.contracts WHERE project = %s "
        "ORDER BY version DESC LIMIT 1",
        [project.name],
    ).fetchone()
    return None if row is None else (int(row[0]), str(row[1]), row[2])


def _plan(connection: Connection, project: Project) -> _Plan:
    recorded = _recorded(connection, project)
    before = {table["name"]: table for table in recorded[2]} if recorded else {}
    plan = _Plan()
    declared = {table["name"]: table for table in contract_json(project.tables)}
    plan.refused += [
        (f"table {project.name}.{name} is no longer declared", "declare it again")
        for name in before
        if name not in declared
    ]
    for table in project.tables:
        found = tables.stored_columns(connection, project, table)
        if not found:
            plan.changes.append(f"table {table.name} is new")
            continue
        _plan_table(plan, connection, project, table, found)
        # Rows are asked only where the columns fit.
        if not plan.refused:
            _plan_rules(plan, connection, project, table, before.get(table.name))
        if table.name in before:
            plan.changes += _differences(before[table.name], declared[table.name])
    if plan.refused:
        raise ConfigurationError(
            f"the contract of {project.name} cannot change so: "
            + "; ".join(says for says, _ in plan.refused),
            fix="; or ".join(dict.fromkeys(fix for _, fix in plan.refused)),
        )
    return plan


def _plan_table(
    plan: _Plan,
    connection: Connection,
    project: Project,
    table: Table,
    found: Mapping[str, tuple[str, bool]],
) -> None:
    """What the columns of a stored table need."""
    full = f"{project.name}.{table.name}"
    target = sql.Identifier(project.name, table.name)
    declared = {column.name for column in table.columns}
    plan.refused += [
        (f"column {full}.{name} ({kind}) is no longer declared", _KEEP)
        for name, (kind, _) in found.items()
        if name not in declared and name not in (KNOWN_AT, SNAPSHOT_ID)
    ]
    key = tables.stored_key(connection, project, table) - {SNAPSHOT_ID}
    if key != set(table.key):
        plan.refuse(
            f"the key of {full} is {', '.join(sorted(key))}, declared "
            f"{', '.join(sorted(table.key))}",
            fix=_KEEP,
        )
    for column in table.columns:
        name, kind = sql.Identifier(column.name), CATALOG_NAMES.get(column.type, column.type.value)
        may_be_null = tables.may_be_null(table, column)
        if column.name not in found:
            rows = 0 if may_be_null else _count(connection, project, table, sql.SQL("true"))
            if rows:
                plan.refuse(
                    f"column {full}.{column.name} is new and not null, and {rows} stored rows "
                    "lack it",
                    fix="declare it nullable",
                )
            plan.statements.append(
                sql.SQL("ALTER TABLE {} ADD COLUMN {} {} {}").format(
                    target,
                    name,
                    sql.SQL(column.type.value),
                    sql.SQL("" if may_be_null else "NOT NULL"),
                )
            )
            plan.views.append(table)
            plan.changes.append(f"column {table.name}.{column.name} is new")
            continue
        stored_kind, stored_null = found[column.name]
        if stored_kind != kind:
            plan.refuse(f"column {full}.{column.name} is {stored_kind}, declared {kind}", fix=_KEEP)
        elif stored_null and not may_be_null:
            nulls = _count(connection, project, table, sql.SQL("{} IS NULL").format(name))
            if nulls:
                plan.refuse(
                    f"column {full}.{column.name} is nullable, declared not null, and it is "
                    f"null in {nulls} stored rows",
                    fix="declare it nullable",
                )
            plan.statements.append(
                sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET NOT NULL").format(target, name)
            )
        elif may_be_null and not stored_null:
            plan.statements.append(
                sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(target, name)
            )


def _plan_rules(
    plan: _Plan,
    connection: Connection,
    project: Project,
    table: Table,
    before: Mapping[str, Any] | None,
) -> None:
    """Whether stored rows satisfy the rules that are new; without a record, all are."""
    full = f"{project.name}.{table.name}"
    if before is not None and before.get("event_time") != table.event_time:
        plan.refuse(
            f"the event_time of {full} is {before.get('event_time')}, declared {table.event_time}",
            fix=_KEEP,
        )
    old_columns = {c["name"]: c for c in before["columns"]} if before is not None else {}
    (new,) = contract_json([table])
    stored = tables.stored_columns(connection, project, table)
    for column, plain in zip(table.columns, new["columns"], strict=True):
        old = old_columns.get(column.name, {})
        if column.name not in stored:
            continue
        for rule in _ROW_RULES:
            if rule not in plain or plain[rule] == old.get(rule):
                continue
            if rule == "references" and not _is_stored(connection, project, plain[rule]):
                # The batch that makes the table brings its rows.
                continue
            rows = _count(connection, project, table, _broken(project, table, column, rule))
            if rows:
                was = f"from {old[rule]} " if rule in old else ""
                plan.refuse(
                    f"column {full}.{column.name} changes {rule} {was}to {plain[rule]}, which "
                    f"{rows} stored rows break",
                    fix="declare what the stored rows satisfy, or name another table",
                )


def _broken(project: Project, table: Table, column: Column, rule: str) -> sql.Composable:
    name = sql.Identifier("t", column.name)
    match rule:
        case "minimum":
            return sql.SQL("{} < {}").format(name, sql.Literal(column.minimum))
        case "maximum":
            return sql.SQL("{} > {}").format(name, sql.Literal(column.maximum))
        case "allowed":
            values = sql.SQL(", ").join(
                sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(column.type.value))
                for text in column.allowed
            )
            return sql.SQL("{} NOT IN ({})").format(name, values)
        case "references":
            other, _, key = (column.references or "").partition(".")
            return sql.SQL(
                "{} IS NOT NULL AND NOT EXISTS (SELECT FROM {} AS o WHERE {} = {})"
            ).format(name, sql.Identifier(project.name, other), sql.Identifier("o", key), name)
    # Unique within a batch: within what one snapshot stored.
    return sql.SQL(
        "({snapshot}, {name}) IN (SELECT {snapshot}, {name} FROM {} AS t "
        "WHERE {name} IS NOT NULL GROUP BY 1, 2 HAVING count(*) > 1)"
    ).format(
        sql.Identifier(project.name, table.name),
        snapshot=sql.Identifier("t", SNAPSHOT_ID),
        name=name,
    )


def _is_stored(connection: Connection, project: Project, target: str) -> bool:
    """Whether the database has the column that a reference is to."""
    other, _, key = target.partition(".")
    return key in tables.stored_columns(connection, project, project.table(other))


def _count(
    connection: Connection, project: Project, table: Table, condition: sql.Composable
) -> int:
    row = connection.execute(
        sql.SQL("SELECT count(*) FROM {} AS t WHERE {}").format(
            sql.Identifier(project.name, table.name), condition
        )
    ).fetchone()
    assert row is not None, "an aggregate gives one row"
    return int(row[0])


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What the declaration of a table changed, in words; new columns are told elsewhere."""
    name = new["name"]
    changes = [
        f"table {name}: {rule} from {old.get(rule)} to {new.get(rule)}"
        for rule in sorted({*old, *new} - {"columns", "name"})
        if old.get(rule) != new.get(rule)
    ]
    old_columns = {c["name"]: c for c in old["columns"]}
    for column in new["columns"]:
        before = old_columns.get(column["name"])
        if before is not None:
            changes += [
                f"column {name}.{column['name']}: {rule} from {before.get(rule)} "
                f"to {column.get(rule)}"
                for rule in sorted({*before, *column} - {"name"})
                if before.get(rule) != column.get(rule)
            ]
    return changes
