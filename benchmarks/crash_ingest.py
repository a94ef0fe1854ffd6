"""Kills ingests at random moments, and looks after each whether the database is whole.

    python crash_ingest.py --kills 50

Each kill has a batch of its own, of one project: a child process ingests it and is killed by
SIGKILL after a random part of the time that an undisturbed ingest takes. Then the database holds
the whole snapshot or nothing of it, the next ingest completes it, and nothing is left in staging.
At the end all rows, and when they became known, equal those of a database without any kill.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, cast

from psycopg import sql

import generate
from churn.project import PROJECT
from espalier.ingest import snapshots
from espalier.ingest.run import Ingested, ingest
from espalier.ingest.tables import SNAPSHOT_ID
from espalier.postgres import embedded, migrate
from espalier.postgres.connect import Connection, connect
from espalier.processes import python_environment

_SECONDS = 120
_PROBE_SECONDS = 0.01
When = Literal["before it stored anything", "after it had stored all", "before it could be killed"]

# A child that has imported all it needs, and ingests when told to.
_CHILD = """
import sys
from datetime import date
from pathlib import Path
import espalier.ingest.great_expectations_adapter
from churn.project import PROJECT
from espalier.ingest.run import ingest
source, as_of, dsn, reports = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
ingest(PROJECT, source=Path(source), as_of=date.fromisoformat(as_of), dsn=dsn,
       reports_dir=Path(reports), who="killed")
"""


class Torn(Exception):
    """The database is not whole."""


@dataclass(frozen=True)
class Kill:
    """What one kill did; `after` is the seconds from the ingest's start."""

    as_of: date
    after: float
    when: When
    staging_left: int


@dataclass(frozen=True)
class _Bench:
    """Where the ingests run."""

    dsn: str
    reports: Path

    def ingest(self, batch: generate.Written) -> Ingested:
        return ingest(
            PROJECT,
            source=batch.folder,
            as_of=batch.as_of,
            dsn=self.dsn,
            reports_dir=self.reports,
            who="bench",
        )


def crash(*, kills: int, customers: int, seed: int, folder: Path) -> list[Kill]:
    """Kill that many ingests, one of each batch but the first; `folder` takes all files.

    Raises:
        Torn: a snapshot was there in part, or rows are not those of undisturbed ingests.
    """
    batches = generate.write_batches(
        folder / "batches", customers=customers, months=kills + 1, seed=seed
    )
    chance = random.Random(seed)  # noqa: S311  # moments are no secret
    with ExitStack() as stack:
        whole, torn = (
            _Bench(stack.enter_context(embedded.temporary()).dsn(), folder / name)
            for name in ("whole", "torn")
        )
        for bench in (whole, torn):
            with connect(bench.dsn) as connection:
                migrate.migrate(connection)
        done = []
        for batch in batches:
            started = time.perf_counter()
            expected = whole.ingest(batch)
            seconds = time.perf_counter() - started
            if batch is batches[0]:
                torn.ingest(batch)
                continue
            done.append(_kill_one(torn, batch, expected, chance.uniform(0, 1.1 * seconds)))
        with connect(whole.dsn) as one, connect(torn.dsn) as other:
            for table in PROJECT.tables:
                if _rows(one, table.name) != _rows(other, table.name):
                    raise Torn(f"{table.name} has other rows than without kills")
    return done


def _kill_one(bench: _Bench, batch: generate.Written, expected: Ingested, after: float) -> Kill:
    ended = _run_and_kill(bench, batch, after)
    with connect(bench.dsn, autocommit=True) as connection:
        _wait_until_alone(connection)
        found = snapshots.newest_revision(connection, PROJECT.name, batch.as_of)
        counts = _counts(connection, found.id if found else None)
        left = _in_staging(connection)
    when: When = "before it stored anything"
    if found is not None:
        when = "after it had stored all"
        if (found.digest, counts) != (expected.digest, expected.rows):
            raise Torn(f"{batch.as_of}: {counts} rows are stored of {dict(expected.rows)}")
    elif any(counts.values()):
        raise Torn(f"{batch.as_of}: {counts} rows are stored without their snapshot")
    if ended == 0:
        when = "before it could be killed"
    again = bench.ingest(batch)
    if (again.status, again.digest) != ("unchanged" if found else "stored", expected.digest):
        raise Torn(f"{batch.as_of}: the next ingest is {again}")
    with connect(bench.dsn) as connection:
        if _counts(connection, again.snapshot_id) != expected.rows:
            raise Torn(f"{batch.as_of}: the next ingest stored other rows")
        if _in_staging(connection):
            raise Torn(f"{batch.as_of}: the next ingest left staging tables")
    return Kill(batch.as_of, after, when, left)


def _run_and_kill(bench: _Bench, batch: generate.Written, after: float) -> int:
    """The exit code of an ingest that is killed so many seconds after its start."""
    child = subprocess.Popen(
        [
            *(sys.executable, "-c", _CHILD, str(batch.folder), str(batch.as_of)),
            *(bench.dsn, str(bench.reports)),
        ],
        env={**os.environ, **python_environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        if child.stdout.readline() != b"ready\n":
            raise Torn(f"{batch.as_of}: the child did not start")
        child.stdin.write(b"go\n")
        child.stdin.flush()
        try:
            child.wait(after)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        return child.wait(_SECONDS)


def _wait_until_alone(connection: Connection) -> None:
    """Until PostgreSQL has noticed that the killed client is gone, and rolled back."""
    deadline = time.monotonic() + _SECONDS
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type IN ('client backend', 'parallel worker') AND pid <> pg_backend_pid()"
    )
    while connection.execute(others).fetchall() != [(0,)]:
        if time.monotonic() > deadline:
            raise Torn("the killed ingest's server process does not end")
        time.sleep(_PROBE_SECONDS)


def _counts(connection: Connection, snapshot_id: int | None) -> Mapping[str, int]:
    """The rows by table of that snapshot, or of none that is stored."""
    of_it = sql.SQL("{} = {}").format(sql.Identifier(SNAPSHOT_ID), sql.Literal(snapshot_id))
    of_none = sql.SQL("NOT EXISTS (SELECT FROM espalier.snapshots AS s WHERE s.id = {})").format(
        sql.Identifier(SNAPSHOT_ID)
    )
    counts = {}
    for table in PROJECT.tables:
        query = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(
            sql.Identifier(PROJECT.name, table.name), of_none if snapshot_id is None else of_it
        )
        ((counts[table.name],),) = connection.execute(query).fetchall()
    return counts


def _in_staging(connection: Connection) -> int:
    ((count,),) = connection.execute(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'staging'::regnamespace"
    ).fetchall()
    return cast("int", count)


def _rows(connection: Connection, table: str) -> Any:
    """A table's rows without the snapshot's number, hashed, as a kill may take up a number."""
    query = sql.SQL(
        "SELECT count(*), md5(string_agg(row, '' ORDER BY row)) FROM "
        "(SELECT (to_jsonb(t) - %s)::text AS row FROM {} AS t) AS rows"
    ).format(sql.Identifier(PROJECT.name, table))
    return connection.execute(query, [SNAPSHOT_ID]).fetchall()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 0 when the database was whole after each kill, 1 when not."""
    parser = argparse.ArgumentParser(description="Kill ingests at random moments")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--customers", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="espalier-crash-") as folder:
        try:
            done = crash(
                kills=options.kills,
                customers=options.customers,
                seed=options.seed,
                folder=Path(folder),
            )
        except Torn as error:
            print(f"crash_ingest: {error}", file=sys.stderr)
            return 1
    print(f"{len(done)} ingests of {options.customers:,} customers, each whole or nothing:\n")
    print("| killed | ingests |\n|---|---:|")
    for when, count in Counter(kill.when for kill in done).items():
        print(f"| {when} | {count} |")
    left = sum(1 for kill in done if kill.staging_left)
    print(f"\n{left} left tables in staging, which the next ingest dropped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
