"""The append-only record of promotions: which version became champion, when, by whom and why.

The ledger decides who is champion; MLflow's alias follows it (see `promotion`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from espalier.errors import CheckRefused
from espalier.postgres.connect import Connection, unreachable

# With a hash of the project's name this keys the advisory lock under which promotions take turns.
_LOCK = 0x70726F6D


@dataclass(frozen=True)
class Entry:
    """One promotion. `from_version` is None for a project's first champion."""

    id: int
    project: str
    from_version: str | None
    to_version: str
    who: str
    why: str
    evidence: Mapping[str, Any]
    at: datetime


def last(connection: Connection, project: str) -> Entry | None:
    """The project's newest promotion, or None."""
    found = connection.execute(
        "SELECT id, project, from_version, to_version, who, why, evidence, at "
        "FROM espalier.ledger WHERE project = %s ORDER BY id DESC LIMIT 1",
        [project],
    ).fetchone()
    return None if found is None else Entry(*found)


def history(connection: Connection, project: str) -> list[Entry]:
    """All promotions of the project, oldest first."""
    found = connection.execute(
        "SELECT id, project, from_version, to_version, who, why, evidence, at "
        "FROM espalier.ledger WHERE project = %s ORDER BY id",
        [project],
    ).fetchall()
    return [Entry(*row) for row in found]


def append(
    connection: Connection,
    project: str,
    *,
    after: Entry | None,
    to_version: str,
    who: str,
    why: str,
    evidence: Mapping[str, Any],
) -> Entry:
    """Record a promotion that follows `after`, the newest entry that the caller knows of.

    Raises:
        CheckRefused: another promotion followed `after` already.
    """
    try:
        with connection.transaction():
            row = connection.execute(
                "INSERT INTO espalier.ledger "
                "(project, previous_id, from_version, to_version, who, why, evidence) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s) "
                "RETURNING id, project, from_version, to_version, who, why, evidence, at",
                [
                    project,
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
