"""Flow runs recorded by, and started by, a real Prefect."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from espalier.orchestration.conftest import Ended, Programs, ended
from espalier.orchestration.testing import Api
from espalier.postgres import embedded
from espalier.postgres.connect import connect

AS_OF = "--as-of=1997-06-30"


@pytest.fixture
def recorded(programs: Programs, prefect: Api) -> Programs:
    """Programs whose runs that server records."""
    return replace(programs, environment={**programs.environment, "PREFECT_API_URL": prefect.url})


def test_a_run_from_a_shell_is_recorded_with_what_it_did(recorded: Programs, prefect: Api):
    done = recorded.run(AS_OF)
    assert (done.code, done.err) == (0, "")
    assert done.facts["status"] == "stored"
    run = prefect.runs()[0]
    assert prefect.state(run["id"])[0] == "Completed"
    assert run["parameters"]["as_of"] == "1997-06-30"
    told = prefect.artifact(run["id"])
    assert told.pop("validation").startswith("[file:///")
    assert told == {name: str(value) for name, value in done.facts.items()}


def test_a_run_that_fails_is_recorded_with_the_reason(
    recorded: Programs, prefect: Api, tmp_path: Path
):
    (tmp_path / "empty").mkdir()
    done = recorded.run(AS_OF, "--source=empty")
    assert done.code == 4
    assert done.reason == (
        "empty: no users.csv, features.csv, labels.csv; "
        "a batch holds one file for each table: .csv, .csv.gz or .parquet"
    )
    name, message = prefect.state(prefect.runs()[0]["id"])
    assert name == "Failed"
    assert done.reason in message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_is_recorded_as_crashed(
    recorded: Programs, prefect: Api, server: embedded.Server, database: str, number
):
    before = len(prefect.runs())
    with connect(server.dsn(database)) as other:
        other.execute("LOCK TABLE espalier.snapshots")
        process = recorded.start(AS_OF)
        until_it_waits_for_the_lock(process, server.dsn(database))
        process.send_signal(number)
        done = ended(process)
    assert (done.code, done.reason) == (130, "interrupted")
    runs = prefect.runs()
    assert len(runs) == before + 1
    assert prefect.state(runs[0]["id"])[0] == "Crashed"


def until_it_waits_for_the_lock(process, dsn: str) -> None:
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = to_regclass(%s)"
    deadline = time.monotonic() + 60
    with connect(dsn, autocommit=True) as connection:
        while not connection.execute(waiting, ["espalier.snapshots"]).fetchall():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_given_a_flow_run_the_process_becomes_its_engine(recorded: Programs, prefect: Api):
    run = prefect.deploy("engine", as_of="1997-06-30")
    done = recorded.run(PREFECT__FLOW_RUN_ID=run)
    assert done.code == 0, done.err
    assert prefect.state(run)[0] == "Completed"
    assert prefect.artifact(run)["status"] == "stored"


def test_a_worker_runs_the_program(recorded: Programs, prefect: Api):
    good = prefect.deploy("worker", as_of="1997-06-30")
    done = work(recorded, "worker")
    assert prefect.state(good)[0] == "Completed", done.out + done.err
    assert prefect.artifact(good)["status"] == "stored"


def work(programs: Programs, pool: str) -> Ended:
    """Have a worker of the pool do what is due, once."""
    command = [
        *(sys.executable, "-m", "prefect", "worker", "start"),
        *("--pool", pool, "--type", "process", "--run-once"),
    ]
    done = subprocess.run(
        command,
        cwd=programs.folder,
        env=programs.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
