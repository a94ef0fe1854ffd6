"""The quarantine: faulty rows as the database keeps them, until they are repaired.

`espalier.quarantine` shows every row with its state. A row is *open* until it was replayed, or
until its day has a later snapshot that is more than a replay: then it is *superseded*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from espalier.ingest.faulty_rows import KEPT, FaultyRows
from espalier.postgres.connect import Connection

State = Literal["open", "replayed", "superseded"]


@dataclass(frozen=True)
class Summary:
    """Rows of one batch and table that break one rule first, and are in one state."""

    batch_id: int
    project: str
    as_of: date
    outcome: Literal["stored", "refused"]
    table: str
    rule: str
    state: State
    rows: int
    faulty: int


@dataclass(frozen=True)
class Entry:
    """One faulty row, or with `line` None what is wrong with a table as a whole.

    `row` holds the values as text by column, None for an empty field. `line` is the record's number
    in `file`, the header being 1.
    """

    id: int
    batch_id: int
    project: str
    as_of: date
    table: str
    file: str
    line: int | None
    row: Mapping[str, str | None] | None
    column: str | None
    rule: str
    reason: str
    outcome: Literal["stored", "refused"]
    snapshot_id: int | None
    created_at: datetime
    replayed_at: datetime | None
    replayed_snapshot_id: int | None
    state: State


def record(
    connection: Connection,
    faulty: FaultyRows,
    *,
    project: str,
    as_of: date,
    snapshot_id: int | None,
    files: Mapping[str, Any],
    row_counts: Mapping[str, int],
    who: str,
) -> int:
    """Keep a batch's faulty rows; give the quarantine batch's id.

    Without a `snapshot_id` the batch was refused: then its first rows are kept, and take the place
    of what the same files left when they were refused before.

    Args:
        connection: In a transaction.
        faulty: The rows.
        project: The project's name.
        as_of: The batch's day.
        snapshot_id: The snapshot that holds the other rows.
        files: By table: `name`, `sha256` and `bytes`.
        row_counts: By table: the rows in its file.
        who: Who ingests.
    """
    refused = snapshot_id is None
    if refused:
        connection.execute(
            "DELETE FROM espalier.quarantine_batches WHERE project = %s AND as_of = %s "
            "AND outcome = 'refused' AND files = %s",
            [project, as_of, Jsonb(files)],
        )
    row = connection.execute(
        "INSERT INTO espalier.quarantine_batches (project, as_of, outcome, snapshot_id, files, "
        "row_counts, faulty_counts, created_by) VALUES (%s, %s, %s, %s, %s, %s, %s, %s) "
        "RETURNING id",
        [
            project,
            as_of,
            "refused" if refused else "stored",
            snapshot_id,
            Jsonb(files),
            Jsonb(row_counts),
            Jsonb(faulty.counts),
            who,
        ],
    ).fetchone()
    assert row is not None, "an INSERT ... RETURNING gives one row"
    batch_id = int(row[0])
    connection.execute(
        sql.SQL(
            """
            WITH said AS ({said})
            INSERT INTO espalier.quarantine_rows
                (batch_id, table_name, line, row, column_name, rule, reason)
            SELECT {batch}, table_name, NULL, NULL, column_name, rule, reason
            FROM {faults} WHERE line IS NULL
            UNION ALL
            SELECT {batch}, table_name, line, row, column_name, rule, reason FROM said
            """
        ).format(
            said=_said(faulty, KEPT if refused else None),
            faults=faulty.faults,
            batch=sql.Literal(batch_id),
        )
    )
    return batch_id


def reasons(connection: Connection, faulty: FaultyRows) -> list[tuple[str, int, str, str, str]]:
    """Table, line, column, rule and reason of each faulty row in staging."""
    query = sql.SQL("SELECT table_name, line, column_name, rule, reason FROM ({}) AS said").format(
        _said(faulty, None)
    )
    return connection.execute(query).fetchall()


def _said(faulty: FaultyRows, limit: int | None) -> sql.Composed:
    """The faulty rows in staging, each with its first column and rule, and with all reasons."""
    return sql.SQL(
        """
        SELECT kept.table_name, kept.line, kept.row,
            (array_agg(f.column_name ORDER BY f.ordinal))[1] AS column_name,
            (array_agg(f.rule ORDER BY f.ordinal))[1] AS rule,
            string_agg('column ' || f.column_name || ': ' || f.reason, '; ' ORDER BY f.ordinal)
                AS reason
        FROM (SELECT table_name, line, row FROM {} ORDER BY table_name, line LIMIT {}) AS kept
        JOIN {} AS f ON f.table_name = kept.table_name AND f.line = kept.line
        GROUP BY kept.table_name, kept.line, kept.row
        ORDER BY kept.table_name, kept.line
        """
    ).format(faulty.rows, sql.Literal(limit), faulty.faults)


def summaries(
    connection: Connection,
    *,
    project: str | None = None,
    as_of: date | None = None,
    states: Sequence[State] = ("open",),
) -> list[Summary]:
    """What is in the quarantine by batch, table, rule and state, the newest batch first.

    `rows` counts the rows that are kept, `faulty` the faulty rows that the table's file had.
    """
    with connection.cursor(row_factory=class_row(Summary)) as cursor:
        return cursor.execute(
            """
            SELECT q.batch_id, q.project, q.as_of, q.outcome, q."table", q.rule, q.state,
                count(q.line) AS rows,
                coalesce((b.faulty_counts ->> q."table")::bigint, 0) AS faulty
            FROM espalier.quarantine q JOIN espalier.quarantine_batches b ON b.id = q.batch_id
            WHERE (%(project)s::text IS NULL OR q.project = %(project)s)
                AND (%(as_of)s::date IS NULL OR q.as_of = %(as_of)s)
                AND q.state = ANY (%(states)s)
            GROUP BY q.batch_id, q.project, q.as_of, q.outcome, q."table", q.rule, q.state,
                b.faulty_counts
            ORDER BY q.batch_id DESC, min(q.id)
            """,
            {"project": project, "as_of": as_of, "states": list(states)},
        ).fetchall()


def entries(connection: Connection, batch_id: int) -> list[Entry]:
    """The rows of a quarantine batch, in the order of table and line; empty when there is none."""
    with connection.cursor(row_factory=class_row(Entry)) as cursor:
        return cursor.execute(
            'SELECT id, batch_id, project, as_of, "table", file, line, row, "column", rule, reason, '
            "outcome, snapshot_id, created_at, replayed_at, replayed_snapshot_id, state "
            "FROM espalier.quarantine WHERE batch_id = %s ORDER BY id",
            [batch_id],
        ).fetchall()


def mark_replayed(connection: Connection, ids: Sequence[int], snapshot_id: int) -> None:
    """Say that the rows were stored by a snapshot."""
    connection.execute(
        "UPDATE espalier.quarantine_rows SET replayed_at = clock_timestamp(), "
        "replayed_snapshot_id = %s WHERE id = ANY (%s)",
        [snapshot_id, list(ids)],
    )
