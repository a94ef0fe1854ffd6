"""Ingest one batch: read, stage, validate, and keep it as a snapshot in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import psycopg

from espalier.contract import contract_digest
from espalier.errors import BadData, ConfigurationError, SnapshotConflict
from espalier.ingest import batch as batches
from espalier.ingest import contract_change, quarantine, report, snapshots, staging, tables
from espalier.ingest.batch import Staged
from espalier.ingest.checks import checks
from espalier.ingest.faults import Faults, refused
from espalier.ingest.snapshots import Snapshot
from espalier.ingest.source import find
from espalier.postgres.connect import Connection, connect, unreachable
from espalier.project import Project


@dataclass(frozen=True)
class Ingested:
    """What one ingest did.

    `rows` counts the new rows stored, by table: none when the same content was stored before,
    which is `status` "unchanged". `quarantined` counts the faulty rows that were left out, by table
    where there are some. `report` is the validation's page; its JSON stands beside it.
    """

    snapshot_id: int
    project: str
    as_of: date
    digest: str
    rows: Mapping[str, int]
    status: Literal["stored", "unchanged"]
    report: Path | None
    quarantined: Mapping[str, int]


@dataclass(frozen=True)
class _Batch:
    """One batch on its way: what it claims to be, and what it is."""

    project: Project
    as_of: date
    revision: bool
    who: str
    staged: Staged


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
    lacks stays as it was. Faulty rows go to the quarantine while each table has no more of them than
    it declares; otherwise, or when a check of a table as a whole fails, the batch is refused and
    the quarantine tells why. A contract that changed compatibly is applied with the snapshot.

    Args:
        project: The declaration.
        source: Holds a file for each declared table, see `source.find`.
        as_of: The day on which the batch was known.
        dsn: PostgreSQL's connection URI; the database is migrated.
        reports_dir: Where `validation/<project>/<as_of>.html` and `.json` are written.
        who: Who ingests, for the record.
        revision: Whether this batch may change the past.

    Raises:
        UsageError: the folder cannot be read.
        BadData: the batch was refused; nothing of it was stored.
        SnapshotConflict: other content is stored under `as_of`, or a newer batch is.
        ConfigurationError: the declaration does not fit itself or what is stored.
        DependencyUnreachable: PostgreSQL does not answer.
    """
    tables.check_names(project)
    checks(project, as_of=as_of)
    try:
        with connect(dsn, autocommit=True) as connection:
            batches.prepare(connection)
            contract_change.check(connection, project)
            found = find(source, project.tables)
            with staging.staging(connection) as place:
                staged = batches.stage(connection, place, project, found, dsn=dsn)
                batch = _Batch(project, as_of, revision, who, staged)
                # Asked again under the lock; here it saves the validation.
                before = _in_history(connection, batch)
                if isinstance(before, Snapshot):
                    return _unchanged(before, project, reports_dir)
                content = _validate(connection, batch, dsn=dsn, reports_dir=reports_dir)
                outcome = _store(connection, batch, content)
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
    page = report.write(reports_dir, content)
    return Ingested(
        snapshot_id,
        project.name,
        as_of,
        staged.digest,
        rows,
        "stored",
        page,
        {table: count for table, count in staged.faulty.counts.items() if count},
    )


def _validate(
    connection: Connection, batch: _Batch, *, dsn: str, reports_dir: Path
) -> dict[str, Any]:
    """The report's content of a batch that may be stored.

    Raises:
        BadData: it may not; what is wrong was put into the quarantine.
    """
    project, staged = batch.project, batch.staged
    if staged.over_limit(project):
        # What the other checks would find is mostly what follows from this.
        raise _refuse(connection, batch, staged.badly_typed)
    before = snapshots.newest_before(connection, project.name, batch.as_of)
    its_checks = checks(
        project, as_of=batch.as_of, last_rows=None if before is None else before.row_counts
    )
    validation = batches.validate(
        connection, staged, project, its_checks, as_of=batch.as_of, dsn=dsn
    )
    failed = [finding for finding in validation.findings if not finding.success]
    of_tables = [finding for finding in failed if not finding.check.kind.of_rows]
    stored = not of_tables and not staged.over_limit(project)
    content = report.content(
        project.name,
        batch.as_of,
        validation,
        staged.file_json,
        contract=contract_digest(project.tables),
        outcome="stored" if stored else "refused",
        quarantined=staged.faulty.counts,
    )
    if not stored:
        for finding in of_tables:
            staged.faulty.note(finding)
        page = report.write(reports_dir, content)
        wrong = [*staged.badly_typed, *map(batches.faults, failed)]
        raise _refuse(connection, batch, wrong, page)
    return content


def _refuse(
    connection: Connection, batch: _Batch, faults: Sequence[Faults], page: Path | None = None
) -> BadData:
    """Keep what is wrong with a batch in the quarantine; give the error that says it."""
    project, staged = batch.project, batch.staged
    with connection.transaction():
        number = quarantine.record(
            connection,
            staged.faulty,
            project=project.name,
            as_of=batch.as_of,
            snapshot_id=None,
            files=staged.file_json,
            row_counts=staged.rows,
            who=batch.who,
        )
    limits = [
        f"{name} has {staged.faulty.counts[name]} faulty rows of {staged.rows[name]}, "
        f"more than the {project.table(name).max_fault_share:.4g} it may have"
        for name in staged.over_limit(project)
        if project.table(name).max_fault_share
    ]
    told = f"{page} tells more; " if page else ""
    return refused(
        faults,
        names=staged.names,
        fix=f"mend the files, {told}nothing was stored; "
        f"the faulty rows are shown by: espalier quarantine show {number}",
        limits=limits,
    )


def _store(
    connection: Connection, batch: _Batch, content: dict[str, Any]
) -> Snapshot | tuple[int, Mapping[str, int]]:
    """Store the batch in one transaction, or give the snapshot that holds it since a moment ago."""
    project, staged = batch.project, batch.staged
    with connection.transaction():
        take_turn(connection, project.name)
        place_in_history = _in_history(connection, batch)
        if isinstance(place_in_history, Snapshot):
            return place_in_history
        contract_change.apply(connection, project, who=batch.who)
        snapshot_id, rows = store(
            connection,
            project,
            staged,
            as_of=batch.as_of,
            revision=place_in_history,
            validation=content,
            who=batch.who,
        )
        if any(staged.faulty.counts.values()):
            quarantine.record(
                connection,
                staged.faulty,
                project=project.name,
                as_of=batch.as_of,
                snapshot_id=snapshot_id,
                files=staged.file_json,
                row_counts=staged.rows,
                who=batch.who,
            )
    return snapshot_id, rows


def store(
    connection: Connection,
    project: Project,
    staged: Staged,
    *,
    as_of: date,
    revision: int,
    validation: Mapping[str, Any],
    who: str,
) -> tuple[int, Mapping[str, int]]:
    """Store the staged rows as a snapshot, in the caller's transaction and turn.

    Gives the snapshot's id and how many new rows each table has from it.
    """
    first = snapshots.oldest_stored(connection, project.name)
    snapshot_id = snapshots.insert(
        connection,
        project=project.name,
        as_of=as_of,
        revision=revision,
        digest=staged.digest,
        files=validation["files"],
        row_counts=staged.rows,
        validation=validation,
        created_by=who,
    )
    rows = {
        table.name: tables.add_rows(
            connection,
            project,
            table,
            staged.place,
            snapshot_id=snapshot_id,
            as_of=as_of,
            backfill=first is None or first.as_of == as_of,
        )
        for table in project.tables
    }
    return snapshot_id, rows


def take_turn(connection: Connection, project: str) -> None:
    """Wait until no other ingest of the project stores; the turn ends with the transaction."""
    connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [lock_name(project)]
    )


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
    content = snapshots.newest_content(connection, name, as_of)
    if content is not None and content.digest == batch.staged.digest:
        return content
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
        {t: n for t, n in snapshot.validation.get("quarantined", {}).items() if n},
    )
