"""Replay: quarantined rows, repaired or simply tried again, are checked and stored.

They are a revision of their day, so they count as known when the other rows of that day are; when
they really came is the snapshot's `created_at`. They pass the checks of rows, by which a reference
may now be to a row that has arrived since; the checks of tables as a whole were the batch's.
"""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from espalier.contract import contract_digest
from espalier.errors import BadData, CheckRefused, UsageError
from espalier.ingest import batch as batches
from espalier.ingest import contract_change, quarantine, report, snapshots, staging
from espalier.ingest.batch import Staged
from espalier.ingest.checks import checks
from espalier.ingest.findings import Validation
from espalier.ingest.quarantine import Entry
from espalier.ingest.run import store, take_turn
from espalier.ingest.source import find
from espalier.postgres.connect import Connection, connect, unreachable
from espalier.project import Project

# No declared name begins with _.
ID, TABLE, REASON = "_id", "_table", "_reason"
_Row = Mapping[str, str | None]


@dataclass(frozen=True)
class Replayed:
    """What one replay did.

    `stored` counts the rows that left the quarantine, `snapshot_id` holds them (None when none
    did), and `faulty` are those that stay, with their new reason.
    """

    batch_id: int
    snapshot_id: int | None
    revision: int | None
    stored: int
    faulty: tuple[Entry, ...]


def export(project: Project, entries: Iterable[Entry], path: Path) -> int:
    """Write the open rows as CSV, to be repaired and replayed; give how many.

    Each has its number in the quarantine, its table and the reason before the columns of the
    project's tables.

    Raises:
        UsageError: the file cannot be written.
    """
    rows = [entry for entry in entries if entry.row is not None and entry.state == "open"]
    there = {name for entry in rows for name in entry.row or {}}
    declared = (column.name for table in project.tables for column in table.columns)
    # A contract of before may have had others.
    columns = [name for name in dict.fromkeys([*declared, *sorted(there)]) if name in there]
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [ID, TABLE, REASON, *columns])
            writer.writeheader()
            for entry in rows:
                facts = {ID: entry.id, TABLE: entry.table, REASON: entry.reason}
                writer.writerow({**facts, **(entry.row or {})})
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
    return len(rows)


def replay(
    project: Project, batch_id: int, *, dsn: str, who: str, repaired: Path | None = None
) -> Replayed:
    """Store the rows of a quarantine batch that are good by now.

    Args:
        project: The declaration.
        batch_id: The quarantine's number of the batch.
        dsn: PostgreSQL's connection URI.
        who: Who replays, for the record.
        repaired: A file that `export` wrote, its rows mended; those it lacks stay as they are.
            Without it all open rows of the batch are tried as they are.

    Raises:
        UsageError: there is no such batch, or the file is not one of it.
        CheckRefused: the batch was refused, or its day was revised since.
        ConfigurationError: the declaration does not fit itself or what is stored.
        DependencyUnreachable: PostgreSQL does not answer.
    """
    try:
        with connect(dsn, autocommit=True) as connection:
            batches.prepare(connection)
            contract_change.check(connection, project)
            entries = _open_entries(connection, project, batch_id)
            rows = _rows(entries, repaired)
            if not rows:
                return Replayed(batch_id, None, None, 0, ())
            with staging.staging(connection) as place:
                return _replay(connection, place, project, entries, rows, dsn=dsn, who=who)
    except psycopg.OperationalError as error:
        raise unreachable(error) from error


def _open_entries(connection: Connection, project: Project, batch_id: int) -> dict[int, Entry]:
    """The batch's open rows by number; refuses a batch that has none to replay."""
    entries = quarantine.entries(connection, batch_id)
    if not entries or entries[0].project != project.name:
        raise UsageError(
            f"the quarantine has no batch {batch_id} of {project.name}",
            fix="see them with: espalier quarantine list",
        )
    first = entries[0]
    if first.outcome == "refused":
        raise CheckRefused(
            f"batch {batch_id} ({project.name} {first.as_of}) was refused as a whole, so its other "
            "rows are not stored either",
            fix="mend its files and ingest it again",
        )
    if any(entry.state == "superseded" for entry in entries):
        raise CheckRefused(
            f"batch {batch_id} ({project.name} {first.as_of}) was revised since, so its rows are "
            "out of date",
            fix="ingest another revision of that day if they are still missing",
        )
    return {entry.id: entry for entry in entries if entry.state == "open" and entry.row}


def _rows(entries: Mapping[int, Entry], repaired: Path | None) -> dict[int, _Row]:
    """The values to try by the rows' numbers."""
    if repaired is None:
        return {number: entry.row or {} for number, entry in entries.items()}
    try:
        with repaired.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if ID not in (reader.fieldnames or ()):
                raise BadData(
                    f"{repaired}: has no column {ID}",
                    fix="repair a file of: espalier quarantine show --csv",
                )
            found: dict[int, _Row] = {}
            for record in reader:
                number = _number(repaired, reader.line_num, record.get(ID), entries)
                row = entries[number].row or {}
                if missing := [name for name in row if record.get(name) is None]:
                    raise BadData(
                        f"{repaired} line {reader.line_num}: lacks {', '.join(missing)}",
                        fix="keep the columns that were exported",
                    )
                if number in found:
                    raise BadData(f"{repaired} line {reader.line_num}: row {number} is there twice")
                found[number] = {name: record[name] or None for name in row}
    except OSError as error:
        raise UsageError(f"{repaired}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadData(f"{repaired}: is not CSV in UTF-8 ({error})") from error
    return found


def _number(path: Path, line: int, text: str | None, entries: Mapping[int, Entry]) -> int:
    number = int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text) else -1
    if number not in entries:
        raise BadData(
            f"{path} line {line}: {ID} {text!r} is no open row of the batch",
            fix="keep the numbers that were exported",
        )
    return number


def _replay(
    connection: Connection,
    place: staging.Staging,
    project: Project,
    entries: Mapping[int, Entry],
    rows: Mapping[int, _Row],
    *,
    dsn: str,
    who: str,
) -> Replayed:
    first = next(iter(entries.values()))
    # The number of each row of the files that are staged; their first record is the header.
    lines: dict[tuple[str, int], int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for table in project.tables:
            names = [column.name for column in table.columns]
            numbers = [number for number in rows if entries[number].table == table.name]
            lines |= {(table.name, line): number for line, number in enumerate(numbers, start=2)}
            with (Path(folder) / f"{table.name}.csv").open("w", encoding="utf-8", newline="") as f:
                writer = csv.writer(f)
                writer.writerow(names)
                writer.writerows([rows[n].get(name) for name in names] for n in numbers)
        found = find(Path(folder), project.tables)
        staged = batches.stage(connection, place, project, found, dsn=dsn)
    with_rows = {entries[number].table for number in rows}
    its_checks = [
        check
        for check in checks(project, as_of=first.as_of)
        if check.kind.of_rows and check.table in with_rows
    ]
    validation = batches.validate(
        connection, staged, project, its_checks, as_of=first.as_of, dsn=dsn
    )
    with connection.transaction():
        take_turn(connection, project.name)
        still_open = _open_entries(connection, project, first.batch_id)
        if not still_open.keys() >= rows.keys():
            raise CheckRefused(
                f"batch {first.batch_id}: another replay took rows of it", fix="replay it again"
            )
        contract_change.apply(connection, project, who=who)
        faulty = _keep_faulty(connection, staged, lines, rows)
        good = [number for number in rows if number not in faulty]
        if good:
            snapshot_id, revision = _store(
                connection, project, staged, first, validation=validation, who=who
            )
            quarantine.mark_replayed(connection, good, snapshot_id)
    stay = tuple(
        replace(entries[number], reason=reason, row=rows[number])
        for number, reason in faulty.items()
    )
    if not good:
        return Replayed(first.batch_id, None, None, 0, stay)
    return Replayed(first.batch_id, snapshot_id, revision, len(good), stay)


def _store(
    connection: Connection,
    project: Project,
    staged: Staged,
    entry: Entry,
    *,
    validation: Validation,
    who: str,
) -> tuple[int, int]:
    newest = snapshots.newest_revision(connection, project.name, entry.as_of)
    assert newest is not None, "the batch's snapshot is there"
    content: dict[str, Any] = report.content(
        project.name,
        entry.as_of,
        validation,
        staged.file_json,
        contract=contract_digest(project.tables),
        outcome="stored",
        quarantined={},
    )
    content["replays"] = entry.batch_id
    snapshot_id, _ = store(
        connection,
        project,
        staged,
        as_of=entry.as_of,
        revision=newest.revision + 1,
        validation=content,
        who=who,
    )
    return snapshot_id, newest.revision + 1


def _keep_faulty(
    connection: Connection,
    staged: Staged,
    lines: Mapping[tuple[str, int], int],
    rows: Mapping[int, _Row],
) -> dict[int, str]:
    """Give the rows that are faulty still the reasons that were found now; give those."""
    if not any(staged.faulty.counts.values()):
        return {}
    found = quarantine.reasons(connection, staged.faulty)
    reasons: dict[int, str] = {}
    for table, line, column, rule, reason in found:
        number = lines[table, line]
        reasons[number] = reason
        connection.execute(
            "UPDATE espalier.quarantine_rows SET row = %s, column_name = %s, rule = %s, "
            "reason = %s WHERE id = %s",
            [Jsonb(rows[number]), column, rule, reason, number],
        )
    return reasons
