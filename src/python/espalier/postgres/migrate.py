"""Numbered SQL migrations, applied once, in order, and never changed afterwards."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files

import psycopg

from espalier.errors import MigrationConflict
from espalier.postgres.connect import Connection

_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
# Any constant of our own: two programs that migrate at once take turns.
_LOCK = 0x6573706C


@dataclass(frozen=True)
class Migration:
    """One migration: its number, name and SQL."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """The sha256 of its SQL."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def packaged() -> list[Migration]:
    """This release's migrations, in order."""
    folder = files("espalier.postgres").joinpath("migrations")
    found = [
        Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if (match := _FILE.fullmatch(entry.name))
    ]
    return sorted(found, key=lambda m: m.number)


def pending(connection: Connection) -> list[int]:
    """The numbers of this release's migrations that the database lacks; nothing is changed."""
    applied: dict[int, str] = {}
    if connection.execute("SELECT to_regclass('espalier.migrations')").fetchone() != (None,):
        applied = _applied(connection)
    return [m.number for m in packaged() if m.number not in applied]


def migrate(connection: Connection, migrations: Sequence[Migration] | None = None) -> list[int]:
    """Apply what is missing, each migration in its own transaction; give the numbers applied.

    Raises:
        MigrationConflict: numbers are not 1, 2, 3 ...; an applied migration was changed since; the
            database has one that this release lacks; or a migration fails, which is rolled back.
    """
    wanted = packaged() if migrations is None else list(migrations)
    if [m.number for m in wanted] != list(range(1, len(wanted) + 1)):
        raise MigrationConflict(
            f"migrations are numbered {[m.number for m in wanted]}", fix="number them 1, 2, 3 ..."
        )
    with _exclusive(connection):
        with connection.transaction():
            connection.execute("CREATE SCHEMA IF NOT EXISTS espalier")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS espalier.migrations (number int PRIMARY KEY, "
                "name text NOT NULL, checksum text NOT NULL, "
                "applied_at timestamptz NOT NULL DEFAULT now())"
            )
            applied = _applied(connection)
        _check(applied, wanted)
        missing = [m for m in wanted if m.number not in applied]
        for migration in missing:
            _apply(connection, migration)
        return [m.number for m in missing]


def _applied(connection: Connection) -> dict[int, str]:
    """The checksum of each applied migration, by number."""
    return dict(connection.execute("SELECT number, checksum FROM espalier.migrations").fetchall())


def _check(applied: dict[int, str], wanted: Sequence[Migration]) -> None:
    known = {m.number: m for m in wanted}
    for number, checksum in sorted(applied.items()):
        if number not in known:
            raise MigrationConflict(
                f"the database has migration {number}, which this release lacks",
                fix="use the release that made it, or a newer one",
            )
        if known[number].checksum != checksum:
            raise MigrationConflict(
                f"migration {number:04}_{known[number].name}.sql was changed after it was applied",
                fix="restore the file and put the change into a new migration",
            )


def _apply(connection: Connection, migration: Migration) -> None:
    try:
        with connection.transaction():
            connection.execute(migration.text.encode())
            connection.execute(
                "INSERT INTO espalier.migrations (number, name, checksum) VALUES (%s, %s, %s)",
                [migration.number, migration.name, migration.checksum],
            )
    except psycopg.Error as error:
        raise MigrationConflict(
            f"migration {migration.number:04}_{migration.name}.sql failed: {error}",
            fix="nothing of it was applied; mend it and run again",
        ) from error


@contextmanager
def _exclusive(connection: Connection) -> Iterator[None]:
    """Hold a session-level advisory lock on the database."""
    connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])
        connection.commit()
