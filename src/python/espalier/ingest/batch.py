"""One batch on its way through staging: its files loaded, its rows checked, faulty ones taken out.

An ingest and a replay of quarantined rows take the same steps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import cached_property, partial
from typing import Any

from psycopg import sql

from espalier.errors import ConfigurationError
from espalier.ingest import staging, tables
from espalier.ingest.checks import Check
from espalier.ingest.digest import content_digest
from espalier.ingest.faults import Faults, shown
from espalier.ingest.faulty_rows import FaultyRows
from espalier.ingest.findings import Finding, Validation
from espalier.ingest.source import FileFacts, SourceFile
from espalier.ingest.staging import Staging
from espalier.postgres.connect import Connection, connect
from espalier.project import Project

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Staged:
    """A batch in its staging tables.

    `rows` counts each file's rows, `files` identifies their bytes. `faulty` holds the rows that
    were taken out, `badly_typed` what is wrong with those whose fields do not hold their types.
    """

    place: Staging
    names: Mapping[str, str]
    files: Mapping[str, FileFacts]
    rows: Mapping[str, int]
    content_digest: Future[str]
    faulty: FaultyRows
    badly_typed: Sequence[Faults]

    @cached_property
    def digest(self) -> str:
        """The digest of all rows, also of the badly typed ones; to be asked before others go."""
        return self.faulty.digest(self.content_digest.result())

    def over_limit(self, project: Project) -> list[str]:
        """The tables with a larger share of faulty rows than declared."""
        return [
            table.name
            for table in project.tables
            if self.faulty.counts.get(table.name, 0) > table.max_fault_share * self.rows[table.name]
        ]

    @property
    def file_json(self) -> dict[str, dict[str, Any]]:
        """What identifies the files, as plain JSON values by table."""
        return {
            table: {"name": self.names[table], "sha256": facts.sha256, "bytes": facts.size}
            for table, facts in self.files.items()
        }


def prepare(connection: Connection) -> None:
    """Make the session write values as digests need them, and look whether it can ingest.

    Raises:
        ConfigurationError: the database is not migrated.
    """
    row = connection.execute("SELECT to_regclass('espalier.quarantine')").fetchone()
    if row is None or row[0] is None:
        raise ConfigurationError(
            "the database has no table espalier.quarantine", fix="apply the migrations first"
        )
    # Whatever the role's defaults: text of values goes into the digest.
    connection.execute("SET datestyle = 'ISO, YMD'")
    connection.execute("SET extra_float_digits = 1")
    for setting in ("work_mem", "maintenance_work_mem"):
        connection.execute(
            sql.SQL("SET {} = {}").format(sql.Identifier(setting), sql.Literal(staging.WORK_MEMORY))
        )


def stage(
    connection: Connection,
    place: Staging,
    project: Project,
    found: Sequence[SourceFile],
    *,
    dsn: str,
) -> Staged:
    """Load the files into typed staging tables, rows with badly typed fields taken out.

    The digest is computed over a connection of its own meanwhile: it takes PostgreSQL about as
    long as the checks do.

    Raises:
        BadData: a file is not of its format.
    """
    files = {file.table.name: staging.load(connection, place, file) for file in found}
    faulty = FaultyRows(connection, place)
    wrong = []
    for file in found:
        faults = staging.type_faults(connection, place, file.table)
        if faults is not None:
            wrong.append(faults)
            faulty.take_badly_typed(file.table)
        staging.make_typed(connection, place, file.table)
    good = staging.count_rows(connection, place, project.tables)
    return Staged(
        place=place,
        names={file.table.name: file.path.name for file in found},
        files=files,
        rows={name: count + faulty.counts.get(name, 0) for name, count in good.items()},
        content_digest=_apart(partial(_digest, dsn, place, project)),
        faulty=faulty,
        badly_typed=wrong,
    )


def _digest(dsn: str, place: Staging, project: Project) -> str:
    with connect(dsn, autocommit=True) as connection:
        prepare(connection)
        return content_digest(connection, place, project.tables)


def _apart(work: Callable[[], str]) -> Future[str]:
    """What the work gives, which a thread of its own begins at once."""
    pool = ThreadPoolExecutor(1, "digest")
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


def validate(
    connection: Connection,
    staged: Staged,
    project: Project,
    its_checks: Sequence[Check],
    *,
    as_of: date,
    dsn: str,
) -> Validation:
    """Check the staged rows; take out the faulty ones, and the rows that refer to those."""
    from espalier.ingest import great_expectations_adapter  # it takes seconds

    started = time.perf_counter()
    stored = tables.stored_tables(connection, project)
    validation = great_expectations_adapter.validate(
        its_checks,
        connect=lambda: connect(dsn),
        staged={table.name: staged.place.typed(table) for table in project.tables},
        rows={
            name: count - staged.faulty.counts.get(name, 0) for name, count in staged.rows.items()
        },
        stored=stored,
    )
    _log.info("%s %s validated in %.2f s", project.name, as_of, time.perf_counter() - started)
    failed = [finding for finding in validation.findings if not finding.success]
    if any(finding.check.kind.of_rows for finding in failed):
        # It is a digest of the rows that are now taken out, too.
        _ = staged.digest
        staged.faulty.take(
            {table.name: table for table in project.tables}, validation.findings, stored
        )
    return validation


def faults(finding: Finding) -> Faults:
    """What a failed check found, to be told in an error."""
    check = finding.check
    if not check.kind.of_rows:
        return Faults(check.table, finding.unexpected, (finding.says,))
    columns = ", ".join(check.columns)
    return Faults(
        check.table,
        finding.unexpected,
        tuple(f"row {row} column {columns}: {shown(v)} {check.says}" for row, v in finding.first),
    )
