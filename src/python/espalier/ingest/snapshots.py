"""Snapshots as they are stored: one for each batch and each revision of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, LiteralString

from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from espalier.postgres.connect import Connection

_COLUMNS = (
    "id, project, as_of, revision, digest, files, row_counts, validation, created_by, created_at"
)


@dataclass(frozen=True)
class Snapshot:
    """One stored batch.

    `files` gives sha256 and size in bytes of each table's file, `row_counts` the rows in it,
    `validation` what the checks found.
    """

    id: int
    project: str
    as_of: date
    revision: int
    digest: str
    files: Mapping[str, Any]
    row_counts: Mapping[str, int]
    validation: Mapping[str, Any]
    created_by: str
    created_at: datetime


def list_snapshots(connection: Connection, project: str) -> list[Snapshot]:
    """The project's snapshots by `as_of` and revision, the newest last."""
    return _select(connection, "project = %s ORDER BY as_of, revision", [project])


def newest(connection: Connection, project: str) -> Snapshot | None:
    """The newest revision of the newest `as_of`; None when nothing is stored."""
    found = _select(
        connection, "project = %s ORDER BY as_of DESC, revision DESC LIMIT 1", [project]
    )
    return found[0] if found else None


def oldest_stored(connection: Connection, project: str) -> Snapshot | None:
    """The snapshot that was stored first, the backfill; None when nothing is stored."""
    found = _select(connection, "project = %s ORDER BY id LIMIT 1", [project])
    return found[0] if found else None


def newest_revision(connection: Connection, project: str, as_of: date) -> Snapshot | None:
    """The newest revision of one `as_of`; None when it is not stored."""
    found = _select(
        connection,
        "project = %s AND as_of = %s ORDER BY revision DESC LIMIT 1",
        [project, as_of],
    )
    return found[0] if found else None


def newest_content(connection: Connection, project: str, as_of: date) -> Snapshot | None:
    """The newest revision of one `as_of` that holds a whole batch, not replayed rows alone."""
    found = _select(
        connection,
        "project = %s AND as_of = %s AND NOT validation ? 'replays' ORDER BY revision DESC LIMIT 1",
        [project, as_of],
    )
    return found[0] if found else None


def newest_before(connection: Connection, project: str, as_of: date) -> Snapshot | None:
    """The newest whole batch of a day before `as_of`."""
    found = _select(
        connection,
        "project = %s AND as_of < %s AND NOT validation ? 'replays' "
        "ORDER BY as_of DESC, revision DESC LIMIT 1",
        [project, as_of],
    )
    return found[0] if found else None


def insert(
    connection: Connection,
    *,
    project: str,
    as_of: date,
    revision: int,
    digest: str,
    files: Mapping[str, Any],
    row_counts: Mapping[str, int],
    validation: Mapping[str, Any],
    created_by: str,
) -> int:
    """Store a snapshot's row; give its id."""
    row = connection.execute(
        "INSERT INTO espalier.snapshots "
        "(project, as_of, revision, digest, files, row_counts, validation, created_by) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        [
            project,
            as_of,
            revision,
            digest,
            Jsonb(files),
            Jsonb(row_counts),
            Jsonb(validation),
            created_by,
        ],
    ).fetchone()
    assert row is not None, "an INSERT ... RETURNING gives one row"
    return int(row[0])


def _select(
    connection: Connection, condition: LiteralString, parameters: list[Any]
) -> list[Snapshot]:
    query = sql.SQL("SELECT {} FROM espalier.snapshots WHERE {}").format(
        sql.SQL(_COLUMNS), sql.SQL(condition)
    )
    with connection.cursor(row_factory=class_row(Snapshot)) as cursor:
        return cursor.execute(query, parameters).fetchall()
