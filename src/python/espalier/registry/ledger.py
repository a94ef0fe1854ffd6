"""The append-only record of promotions and rollbacks: who made which version champion, and why.

The ledger decides who is champion; MLflow's aliases follow it (see `promotion`). Read from its
start it gives a stack: a promotion puts a version on top, a rollback takes off those above the
version that it went back to. The top is the champion, the one below it the previous champion.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from espalier.errors import CheckRefused
from espalier.postgres.connect import Connection, unreachable

# With a hash of the project's name this keys the advisory lock under which promotions take turns.
_LOCK = 0x70726F6D
# Who serves listens on it. The database itself notifies when an entry is committed.
CHANNEL = "espalier_promotion"

Kind = Literal["promote", "rollback"]


@dataclass(frozen=True)
class Entry:
    """One promotion or rollback. `from_version` is None for a project's first champion."""

    id: int
    project: str
    kind: Kind
    from_version: str | None
    to_version: str
    who: str
    why: str
    evidence: Mapping[str, Any]
    at: datetime


_COLUMNS = sql.SQL("id, project, kind, from_version, to_version, who, why, evidence, at")
_SELECT = sql.SQL("SELECT {} FROM espalier.ledger WHERE project = %s ").format(_COLUMNS)


def last(connection: Connection, project: str) -> Entry | None:
    """The project's newest entry, or None."""
    query = sql.SQL("{} ORDER BY id DESC LIMIT 1").format(_SELECT)
    found = connection.execute(query, [project]).fetchone()
    return None if found is None else Entry(*found)


def history(connection: Connection, project: str) -> list[Entry]:
    """All entries of the project, oldest first."""
    query = sql.SQL("{} ORDER BY id").format(_SELECT)
    return [Entry(*row) for row in connection.execute(query, [project]).fetchall()]


def champions(entries: Sequence[Entry]) -> list[Entry]:
    """The promotions still in force under each other, the champion's last.

    Args:
        entries: A project's whole history, oldest first.
    """
    stack: list[Entry] = []
    for entry in entries:
        if entry.kind == "promote":
            stack.append(entry)
        else:
            stack.pop()
            while stack and stack[-1].to_version != entry.to_version:
                stack.pop()
    return stack


def append(
    connection: Connection,
    project: str,
    *,
    after: Entry | None,
    to_version: str,
    who: str,
    why: str,
    evidence: Mapping[str, Any],
    kind: Kind = "promote",
) -> Entry:
    """Record a promotion that follows `after`, the newest entry that the caller knows of.

    Raises:
        CheckRefused: another one followed `after` already.
    """
    query = sql.SQL(
        "INSERT INTO espalier.ledger "
        "(project, kind, previous_id, from_version, to_version, who, why, evidence) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING {}"
    ).format(_COLUMNS)
    try:
        with connection.transaction():
            row = connection.execute(
                query,
                [
                    project,
                    kind,
                    after and after.id,
                    after and after.to_version,
                    to_version,
                    who,
                    why,
                    Jsonb(dict(evidence)),
                ],
            ).fetchone()
    except psycopg.errors.UniqueViolation as error:
        raise CheckRefused(
            f"another model of {project} was promoted in the meantime",
            fix="compare with the new champion: run the training flow again",
        ) from error
    assert row is not None, "INSERT RETURNING gives its row"
    return Entry(*row)


def tell(connection: Connection, entry: Entry) -> None:
    """Say on `CHANNEL` once more that this version is champion, when the transaction commits.

    The database said so when the entry was committed; that was before MLflow's alias moved.
    """
    said = json.dumps({"project": entry.project, "version": entry.to_version})
    connection.execute("SELECT pg_notify(%s, %s)", [CHANNEL, said])


@contextmanager
def exclusive(connection: Connection, project: str) -> Iterator[None]:
    """Hold the project's promotion lock; others wait. Ends the connection's open transaction.

    It is a lock of the session, not of a transaction, because it must span a commit.

    Raises:
        DependencyUnreachable: PostgreSQL goes away.
    """
    key = [_LOCK, project]
    try:
        connection.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", key)
        connection.commit()
        try:
            yield
        finally:
            if not connection.broken:
                connection.rollback()
                connection.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", key)
                connection.commit()
    except psycopg.OperationalError as error:
        raise unreachable(error) from error
