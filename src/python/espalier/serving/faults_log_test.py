"""A prediction log that cannot be written: no caller notices, and every row is accounted for."""

from __future__ import annotations

import shutil
import subprocess
import sys

import psycopg
import pytest

from espalier.postgres import programs
from espalier.serving.testing_load import unaccounted, under_load
from espalier.serving.testing_server import serving

QUEUE = 50_000
# A file of PostgreSQL's write-ahead log has so many bytes, and must still be written.
SEGMENT = 16 * 2**20
LOG = "espalier.predictions"


@pytest.fixture
def running(database, registry, tmp_path):
    database.execute(f"TRUNCATE {LOG}")
    with serving(database.dsn, registry.uri, tmp_path) as running:
        running.until(running.is_ready)
        yield running


def logged(running):
    return running.metric("espalier_predictions_logged_total")


def dropped(running):
    return running.metric("espalier_predictions_not_logged_total")


def serve_on(load, running, *, until_dropped):
    """Have the load go on while the log cannot be written, if asked until its queue is full."""
    load.until(lambda: "predictions wait to be logged" in running.events())
    if until_dropped:
        load.until(lambda: dropped(running) > 0, 120)
    load.until_served(200)
    assert running.is_ready()


def accounted(load, running, database, fault):
    """After the fault nobody was refused, and the log has exactly what it says."""
    load.tell(fault)
    assert load.counts().lost == ()
    assert not load.counts().refused
    running.until(lambda: unaccounted(running) == 0)
    ((stored,),) = database.execute(f"SELECT count(*) FROM {LOG}")
    assert stored == logged(running) > 0
    assert "predictions are logged again" in running.events()


def test_a_locked_log_fills_its_queue_and_then_drops(running, database):
    with under_load(running, batch_callers=6, batch_size=250) as load:
        load.until(lambda: logged(running) > 0)
        with database.locked(LOG):
            serve_on(load, running, until_dropped=True)
            # One waits for the lock; those that were given up are not left behind.
            assert database.connections() <= 4 + 1 + 1 + 1
            assert unaccounted(running) <= QUEUE
        before = logged(running)
        load.until(lambda: logged(running) > before)
    assert dropped(running) > 0
    assert "predictions are dropped from the log" in running.events()
    accounted(load, running, database, "a lock on the prediction log")


@pytest.fixture
def small_disk(database, tmp_path):
    """A tablespace of 2 MB for the log's new months; gives a function that makes it larger."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("a small disk is made by Linux' mount")
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root; see the limit of file sizes")
    try:
        programs.give(place)
        database.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
        database.execute("ALTER DATABASE espalier SET default_tablespace = small")
        yield lambda: subprocess.run(
            ["mount", "-o", "remount,size=200m", str(place)], check=True, capture_output=True
        )
        database.execute("ALTER DATABASE espalier RESET default_tablespace")
        for (month,) in database.execute(
            "SELECT relname FROM pg_class JOIN pg_tablespace ON pg_tablespace.oid = reltablespace "
            "WHERE spcname = 'small' AND relkind = 'r'"
        ):
            database.execute(f"DROP TABLE espalier.{month}")
        database.execute("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_for_the_log_costs_no_prediction(small_disk, registry, database, tmp_path):
    for (month,) in database.execute(
        "SELECT relname FROM pg_class WHERE relname ~ '^predictions_[0-9]' AND relkind = 'r'"
    ):
        database.execute(f"DROP TABLE espalier.{month}")
    with serving(database.dsn, registry.uri, tmp_path) as running:
        running.until(running.is_ready)
        with under_load(running, batch_callers=6, batch_size=250) as load:
            load.until_served(100)
            serve_on(load, running, until_dropped=True)
            assert "No space left on device" in running.log.read_text()
            small_disk()
            before = logged(running)
            load.until(lambda: logged(running) > before)
        accounted(load, running, database, "a full disk for the prediction log")


def fill(database):
    """Write to the log until PostgreSQL refuses."""
    while True:
        database.execute(
            f"INSERT INTO {LOG} SELECT '1998-07-14', 'p', '1', repeat('e', 1000), 0.5, 1, "
            "'1998-07-14', '{}' FROM generate_series(1, 2000)"
        )


def test_a_log_whose_file_may_not_grow_costs_no_prediction(running, database):
    # The file of the month that the server writes to.
    with under_load(running) as load:
        load.until(lambda: logged(running) > 0)
    database.limit_files(SEGMENT)
    try:
        with pytest.raises(psycopg.Error, match="File too large"):
            fill(database)
        with under_load(running) as load:
            serve_on(load, running, until_dropped=False)
            assert "File too large" in running.log.read_text()
            database.limit_files(-1)
            before = logged(running)
            load.until(lambda: logged(running) > before)
    finally:
        database.limit_files(-1)
    assert dropped(running) == 0
    database.execute(f"DELETE FROM {LOG} WHERE project = 'p'")
    accounted(load, running, database, "a file of the prediction log that may not grow")
