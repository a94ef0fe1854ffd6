"""Ingest one batch: read, stage, validate, and keep it as a snapshot in one transaction."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import psycopg

from espalier.errors import ConfigurationError, SnapshotConflict
from espalier.ingest import report, snapshots, source, staging, tables
from espalier.ingest.checks import Check, checks
from espalier.ingest.digest import content_digest
from espalier.ingest.faults import Faults, refused, shown
from espalier.ingest.findings import Finding
from espalier.ingest.snapshots import Snapshot
from espalier.ingest.source import FileFacts, SourceFile
from espalier.ingest.staging import Staging
from espalier.postgres.connect import Connection, connect, unreachable
from espalier.project import Project

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ingested:
    """What one ingest did.

    `rows` counts the new rows stored, by table: none when the same content was stored before,
    which is `status` "unchanged". `report` is the validation's page; its JSON stands beside it.
    """

    snapshot_id: int
    project: str
    as_of: date
    digest: str
    rows: Mapping[str, int]
    status: Literal["stored", "unchanged"]
    report: Path | None


@dataclass(frozen=True)
class _Batch:
    """One batch on its way: what it claims to be, and what it is."""

    project: Project
    as_of: date
    revision: bool
    digest: str
    files: Mapping[str, FileFacts]


def ingest(
    project: Project,
    *,
    source: Path,
    as_of: date,
    dsn: str,
    reports_dir: Path,
    who: str,
    revision: bool = False,
) -> Ingested:
    """Store the folder's files as the project's snapshot of `as_of`; all of it or nothing.

    The same content again is a no-op. Snapshots come in the order of `as_of`; what was stored does
    not change, except that `revision` allows to add another content under an `as_of` that is
    stored, or a batch from before the newest one. A batch adds and corrects rows: a row that it
    lacks stays as it was.

    Args:
        project: The declaration.
        source: Holds `<table>.csv` for each declared table.
        as_of: The day on which the batch was known.
        dsn: PostgreSQL's connection URI; the database is migrated.
        reports_dir: Where `validation/<project>/<as_of>.html` and `.json` are written.
        who: Who ingests, for the record.
        revision: Whether this batch may change the past.

    Raises:
        UsageError: the folder cannot be read.
        BadData: a file or a row breaks the declaration; nothing was stored.
        SnapshotConflict: other content is stored under `as_of`, or a newer batch is.
        ConfigurationError: the declaration does not fit itself or the database.
        DependencyUnreachable: PostgreSQL does not answer.
    """
    tables.check_names(project)
    its_checks = checks(project, as_of=as_of)
    found = _find(source, project)
    try:
        with connect(dsn, autocommit=True) as connection:
            _prepare(connection)
            with staging.staging(connection) as place:
                files = _stage(connection, place, found)
                batch = _Batch(
                    project=project,
                    as_of=as_of,
                    revision=revision,
                    digest=content_digest(connection, place, project.tables),
                    files=files,
                )
                # Asked again under the lock; here it saves the validation.
                before = _in_history(connection, batch)
                if isinstance(before, Snapshot):
                    return _unchanged(before, project, reports_dir)
                validation = _validate(
                    connection,
                    place,
                    batch,
                    its_checks,
                    dsn=dsn,
                    reports_dir=reports_dir,
                )
                outcome = _store(connection, place, batch, validation, who)
                if isinstance(outcome, Snapshot):
                    return _unchanged(outcome, project, reports_dir)
                snapshot_id, rows = outcome
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"PostgreSQL: {error.diag.message_primary}",
            fix="grant the role of POSTGRES_USER what it needs to create schemas and tables",
        ) from error
    except psycopg.OperationalError as error:
        raise unreachable(error) from error
    page = report.write(reports_dir, validation)
    return Ingested(snapshot_id, project.name, as_of, batch.digest, rows, "stored", page)


def _find(folder: Path, project: Project) -> list[SourceFile]:
    return source.find(folder, project.tables)


def _prepare(connection: Connection) -> None:
    row = connection.execute("SELECT to_regclass('espalier.snapshots')").fetchone()
    if row is None or row[0] is None:
        raise ConfigurationError(
            "the database has no table espalier.snapshots", fix="apply the migrations first"
        )
    # Whatever the role's defaults: text of values goes into the digest.
    connection.execute("SET datestyle = 'ISO, YMD'")
    connection.execute("SET extra_float_digits = 1")


def _stage(
    connection: Connection, place: Staging, found: list[SourceFile]
) -> Mapping[str, FileFacts]:
    files = {file.table.name: staging.load(connection, place, file) for file in found}
    faults = [staging.type_faults(connection, place, file.table) for file in found]
    wrong = [one for one in faults if one is not None]
    if wrong:
        raise refused(wrong, fix="mend the files; nothing was stored")
    for file in found:
        staging.make_typed(connection, place, file.table)
    return files


def _validate(
    connection: Connection,
    place: Staging,
    batch: _Batch,
    its_checks: list[Check],
    *,
    dsn: str,
    reports_dir: Path,
) -> dict[str, Any]:
    """The report's content of a batch without fault; one with faults is reported and refused."""
    from espalier.ingest.great_expectations_adapter import (  # it takes seconds
        validate,
    )

    project = batch.project
    started = time.perf_counter()
    validation = validate(
        its_checks,
        connect=lambda: connect(dsn),
        staged={table.name: place.typed(table) for table in project.tables},
        rows=staging.count_rows(connection, place, project.tables),
        stored=tables.stored_tables(connection, project),
    )
    _log.info("%s %s validated in %.2f s", project.name, batch.as_of, time.perf_counter() - started)
    content = report.content(project.name, batch.as_of, validation, batch.files)
    if not validation.success:
        page = report.write(reports_dir, content)
        raise refused(
            [_faults(finding) for finding in validation.findings if not finding.success],
            fix=f"mend the files, {page} tells more; nothing was stored",
        )
    return content


def _faults(finding: Finding) -> Faults:
    check = finding.check
    if not check.columns:
        return Faults(check.table, finding.unexpected, (check.says,))
    columns = ", ".join(check.columns)
    return Faults(
        check.table,
        finding.unexpected,
        tuple(f"row {row} column {columns}: {shown(v)} {check.says}" for row, v in finding.first),
    )


def _store(
    connection: Connection, place: Staging, batch: _Batch, validation: dict[str, Any], who: str
) -> Snapshot | tuple[int, Mapping[str, int]]:
    """Store the batch in one transaction, or give the snapshot that holds it since a moment ago."""
    project = batch.project
    with connection.transaction():
        connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [lock_name(project.name)]
        )
        place_in_history = _in_history(connection, batch)
        if isinstance(place_in_history, Snapshot):
            return place_in_history
        tables.ensure(connection, project)
        first = snapshots.oldest_stored(connection, project.name)
        snapshot_id = snapshots.insert(
            connection,
            project=project.name,
            as_of=batch.as_of,
            revision=place_in_history,
            digest=batch.digest,
            files=validation["files"],
            row_counts=staging.count_rows(connection, place, project.tables),
            validation=validation,
            created_by=who,
        )
        rows = {
            table.name: tables.add_rows(
                connection,
                project,
                table,
                place,
                snapshot_id=snapshot_id,
                as_of=batch.as_of,
                backfill=first is None or first.as_of == batch.as_of,
            )
            for table in project.tables
        }
    return snapshot_id, rows


def lock_name(project: str) -> str:
    """What is hashed to the advisory lock that a project's ingests take turns by."""
    return f"espalier.ingest:{project}"


def _in_history(connection: Connection, batch: _Batch) -> Snapshot | int:
    """The stored snapshot with the batch's content, or the revision number it would get.

    Raises:
        SnapshotConflict: the batch would change the past and is not a revision.
    """
    name, as_of = batch.project.name, batch.as_of
    stored = snapshots.newest_revision(connection, name, as_of)
    if stored is not None and stored.digest == batch.digest:
        return stored
    if stored is not None and not batch.revision:
        raise SnapshotConflict(
            f"{name} {as_of}: other content is stored as snapshot {stored.id}, "
            f"revision {stored.revision}",
            fix="ask for a revision if this batch corrects it",
        )
    newest = snapshots.newest(connection, name)
    if stored is None and newest is not None and newest.as_of > as_of and not batch.revision:
        raise SnapshotConflict(
            f"{name} {as_of}: the newer snapshot {newest.as_of} is stored, "
            "so this batch would change what was known then",
            fix="ingest batches in order, or ask for a revision to add it all the same",
        )
    return 1 if stored is None else stored.revision + 1


def _unchanged(snapshot: Snapshot, project: Project, reports_dir: Path) -> Ingested:
    return Ingested(
        snapshot.id,
        snapshot.project,
        snapshot.as_of,
        snapshot.digest,
        {table.name: 0 for table in project.tables},
        "unchanged",
        # Written again: the first run may have been killed before it wrote the report.
        report.write(reports_dir, snapshot.validation),
    )
