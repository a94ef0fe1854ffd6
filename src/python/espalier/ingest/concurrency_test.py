"""Ingests at the same time, and ingests killed on the way: each pause is a lock that is held."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from espalier.errors import SnapshotConflict
from espalier.ingest import snapshots
from espalier.ingest.conftest import BATCH, HOTEL, Run, write_batch
from espalier.ingest.run import lock_name
from espalier.postgres.connect import Connection, connect
from espalier.processes import python_environment

_SECONDS = 60

_INGEST = """
import sys
from datetime import date
from pathlib import Path
from typing import Any
from pathlib import Path
from espalier.ingest.conftest import HOTEL
from espalier.ingest.run import ingest
folder, as_of, dsn, reports = sys.argv[1:]
ingest(HOTEL, source=Path(folder), as_of=date.fromisoformat(as_of), dsn=dsn,
       reports_dir=Path(reports), who="killed")
"""

HOLD_PROJECT = f"SELECT pg_advisory_xact_lock(hashtextextended('{lock_name('hotel')}', 0))"
HOLD_LAST_TABLE = "LOCK TABLE hotel.stays IN SHARE ROW EXCLUSIVE MODE"


def wait_for(connection: Connection, query: str, expected: Any) -> None:
    deadline = time.monotonic() + _SECONDS
    while (found := connection.execute(query.encode()).fetchall()) != expected:
        assert time.monotonic() < deadline, f"{found} is not {expected}"
        time.sleep(0.02)


@contextmanager
def held(dsn: str, statement: str) -> Iterator[None]:
    with connect(dsn) as holder:
        holder.execute(statement.encode())
        yield


WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


def test_the_same_snapshot_at_the_same_time_is_stored_once(
    run: Run, connection: Connection, dsn: str, tmp_path: Path
) -> None:
    folder = write_batch(tmp_path / "batch")
    with ThreadPoolExecutor(2) as pool:
        with held(dsn, HOLD_PROJECT):
            both = [pool.submit(run, folder) for _ in range(2)]
            # Both have read, found no snapshot and validated; now they want to store.
            wait_for(connection, WAITING, [(2,)])
        done = [future.result(timeout=_SECONDS) for future in both]
    assert sorted(one.status for one in done) == ["stored", "unchanged"]
    assert len({one.digest for one in done}) == 1
    assert {one.snapshot_id for one in done} == {1}
    assert connection.execute("SELECT count(*) FROM hotel.rooms").fetchall() == [(2,)]


def test_two_contents_of_one_snapshot_at_the_same_time_are_a_conflict(
    run: Run, connection: Connection, dsn: str, tmp_path: Path
) -> None:
    folders = [
        write_batch(tmp_path / "one"),
        write_batch(tmp_path / "two", rooms=BATCH["rooms"].replace("by the lift", "old")),
    ]
    with ThreadPoolExecutor(2) as pool:
        with held(dsn, HOLD_PROJECT):
            both = [pool.submit(run, folder) for folder in folders]
            wait_for(connection, WAITING, [(2,)])
        errors = [future.exception(timeout=_SECONDS) for future in both]
    assert [type(error) for error in errors if error] == [SnapshotConflict]
    assert len(snapshots.list_snapshots(connection, "hotel")) == 1


def test_two_days_at_the_same_time_are_each_stored_whole_or_refused(
    run: Run, connection: Connection, dsn: str, tmp_path: Path
) -> None:
    days = [date(2024, 1, 31), date(2024, 2, 29)]
    folders = [
        write_batch(tmp_path / "january"),
        write_batch(tmp_path / "february", rooms="room,kind,note\n1,double,\n2,double,\n"),
    ]
    with ThreadPoolExecutor(2) as pool:
        with held(dsn, HOLD_PROJECT):
            both = [
                pool.submit(run, folder, as_of=day)
                for folder, day in zip(folders, days, strict=True)
            ]
            wait_for(connection, WAITING, [(2,)])
        january, february = (future.exception(timeout=_SECONDS) for future in both)
    # Whichever came first; a day before the newest is refused.
    assert february is None
    stored = snapshots.list_snapshots(connection, "hotel")
    if january is None:
        assert [snapshot.as_of for snapshot in stored] == days
    else:
        assert isinstance(january, SnapshotConflict)
        assert [snapshot.as_of for snapshot in stored] == days[1:]
    rooms = "SELECT snapshot_id, count(*) FROM hotel.rooms GROUP BY 1 ORDER BY 1"
    assert connection.execute(rooms.encode()).fetchall() == [(s.id, 2) for s in stored]


def test_two_projects_at_the_same_time_do_not_wait_for_each_other(
    run: Run, connection: Connection, dsn: str, tmp_path: Path
) -> None:
    connection.execute("DROP SCHEMA IF EXISTS hostel CASCADE")
    folder = write_batch(tmp_path / "batch")
    hostel = replace(HOTEL, name="hostel")
    with ThreadPoolExecutor(1) as pool:
        with held(dsn, HOLD_PROJECT):
            waits = pool.submit(run, folder)
            wait_for(connection, WAITING, [(1,)])
            assert run(folder, project=hostel).status == "stored"
        assert waits.result(timeout=_SECONDS).status == "stored"
    assert connection.execute("SELECT count(*) FROM hostel.rooms").fetchall() == [(2,)]
    connection.execute("DROP SCHEMA hostel CASCADE")


def test_killed_ingests_leave_nothing_and_the_next_one_completes(
    run: Run, connection: Connection, dsn: str, tmp_path: Path
) -> None:
    first = write_batch(tmp_path / "first")
    second = write_batch(tmp_path / "second", rooms="room,kind,note\n1,double,\n2,double,\n")
    run(first)
    given = [str(second), "2024-02-29", dsn, str(tmp_path / "reports")]
    with held(dsn, HOLD_LAST_TABLE):
        children = [
            subprocess.Popen(
                [sys.executable, "-c", _INGEST, *given], env={**os.environ, **python_environment()}
            )
            for _ in range(2)
        ]
        try:
            # One has written all but the last table; the other waits for its turn to write.
            wait_for(
                connection,
                "SELECT locktype FROM pg_locks WHERE NOT granted ORDER BY locktype",
                [("advisory",), ("relation",)],
            )
        finally:
            for child in children:
                child.send_signal(signal.SIGKILL)
        assert [child.wait(_SECONDS) for child in children] == [-signal.SIGKILL] * 2
    # Their server processes find out when they are let go and want to answer.
    wait_for(
        connection,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
        [(0,)],
    )
    assert [s.id for s in snapshots.list_snapshots(connection, "hotel")] == [1]
    assert connection.execute("SELECT count(*) FROM hotel.rooms").fetchall() == [(2,)]
    left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'staging'::regnamespace"
    assert connection.execute(left).fetchall() != [(0,)]

    done = run(second, as_of=date(2024, 2, 29))
    assert (done.status, done.rows["rooms"]) == ("stored", 2)
    assert connection.execute(left).fetchall() == [(0,)]
