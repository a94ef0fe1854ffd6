"""PEXes that were deployed and that a worker runs: on a host without our sources."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.cli import testing
from espalier.cli.testing import Host
from espalier.orchestration import distribution
from espalier.orchestration.testing import SEEDS, Api
from espalier.postgres.connect import connect

PEX = Path("churn-ingest.pex").absolute()
DECLARED = """
[pool]
name = "pexes"
limit = 4

[[queue]]
name = "files"
limit = 3

[[deployment]]
name = "churn"
flow = "ingest"
project = "churn"
pex = "churn-ingest.pex"
queue = "files"
tags = ["churn"]
concurrency = 3
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    if not PEX.is_file():
        pytest.skip("needs churn-ingest.pex here: ./pants test builds it")
    with testing.host(tmp_path_factory.mktemp("host"), [PEX]) as made:
        yield made


@pytest.fixture(scope="module")
def deployed(host: Host) -> Host:
    """The host with the deployment of the PEX."""
    done = host.deploy(DECLARED, "--record")
    assert done.returncode == 0, done.stderr
    return host


@pytest.fixture(scope="module")
def working(deployed: Host) -> Iterator[Host]:
    """The same with a worker in an empty folder."""
    with deployed.working("pexes"):
        yield deployed


def test_a_dry_run_shows_all_and_does_nothing(host: Host) -> None:
    (host.pexes / "SHA256SUMS").unlink(missing_ok=True)
    refused = host.deploy(DECLARED, "--dry-run")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "its digest is neither declared nor recorded; record what was tested" in refused.stderr
    digest = distribution.digest_of(host.pexes / PEX.name)
    shown = host.deploy(f'{DECLARED}sha256 = "{digest}"\n', "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert [line for line in shown.stdout.splitlines() if line.startswith("+")] == [
        "+ work pool pexes",
        "+ queue files of pexes",
        "+ deployment ingest/churn",
    ]
    assert digest in shown.stdout
    assert shown.stdout.endswith("3 of 3 would change; nothing was done\n")
    assert host.prefect.client.get("/work_pools/pexes").status_code == 404
    assert not (host.folder / "store").exists()


def test_deploy_is_idempotent_and_shows_what_differs(deployed: Host) -> None:
    again = deployed.deploy(DECLARED)
    assert again.returncode == 0, again.stderr
    assert again.stdout.endswith("0 of 3 changed, 0 of 1 PEXes put into the store\n"), again.stdout
    changed = DECLARED.replace("limit = 4", "limit = 5").replace("concurrency = 3", "")
    changed += 'cron = "0 1 1 * *"\nparameters = { wait_seconds = 5 }\n'
    shown = deployed.deploy(changed)
    assert shown.returncode == 0, shown.stderr
    assert "~ work pool pexes\n    concurrency_limit: 4 -> 5\n" in shown.stdout
    assert "    concurrency_limit: 3 -> null\n" in shown.stdout
    assert '"wait_seconds": 5' in shown.stdout
    assert '"cron": "0 1 1 * *"' in shown.stdout
    found = deployed.prefect.client.get("/deployments/name/ingest/churn").json()
    assert [one["schedule"]["cron"] for one in found["schedules"]] == ["0 1 1 * *"]
    # Prefect's server makes the runs that its workers then take when they are due.
    deployed.until(
        lambda: any(
            run["auto_scheduled"] and run["expected_start_time"][7:].startswith("-01T01:00:00")
            for run in deployed.prefect.runs()
        ),
        seconds=120,
    )
    back = deployed.deploy(DECLARED)
    assert back.stdout.endswith("2 of 3 changed, 0 of 1 PEXes put into the store\n"), back.stdout
    assert deployed.deploy(DECLARED, "--dry-run").stdout.endswith(
        "0 of 3 would change; nothing was done\n"
    )


def test_a_pex_that_is_not_the_one_recorded_is_refused(deployed: Host) -> None:
    path = deployed.pexes / PEX.name
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"more")
    try:
        done = deployed.deploy(DECLARED)
    finally:
        os.truncate(path, whole)
    assert (done.returncode, done.stdout) == (4, "")
    assert re.search(r"has the sha256 \w{12}\.\.\., and .*SHA256SUMS records \w{12}", done.stderr)
    declared = deployed.deploy(f'{DECLARED}sha256 = "{"0" * 64}"\n')
    assert declared.returncode == 4
    assert "deployment churn declares 000000000000" in declared.stderr


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ("", "[pool]: lacks name"),
        (DECLARED + "color = 1", "[[deployment]] 1: unknown key color"),
        (DECLARED.replace("limit = 4", "limit = 0"), "[pool]: limit = 0 is no number above 0"),
        (DECLARED.replace('"files"', '"other"', 1), "deployment churn: no queue files"),
        (DECLARED + "parameters = { nope = 1 }", "flow ingest has no parameter nope"),
        (DECLARED + 'cron = "often"', "cron = 'often' in 'UTC' is no schedule"),
        (DECLARED.replace("churn-ingest.pex", "nope.pex"), "nope.pex: cannot be read"),
    ],
)
def test_a_wrong_declaration_is_one_line(deployed: Host, declared: str, says: str) -> None:
    done = deployed.deploy(declared)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_completes_with_its_parameters_logs_result_and_heartbeat(working: Host) -> None:
    api = working.prefect
    run = working.start("ingest/churn", "as_of=1997-06-30")
    api.until(run, "Completed", "Failed", "Crashed")
    assert api.state(run)[0] == "Completed", working.worker_log.read_text()
    found = api.client.get(f"/flow_runs/{run}").json()
    assert found["parameters"] == {"project": "churn", "as_of": "1997-06-30"}
    assert api.artifact(run)["status"] == "stored"
    # Logs and events are sent in the background.
    working.until(lambda: logged(api, run, "Finished in state Completed"))
    asked = {"any_resource": {"id": [f"prefect.flow-run.{run}"]}}
    working.until(
        lambda: any(
            event["event"] == "prefect.flow-run.heartbeat"
            for event in api.ask("/events/filter", filter=asked)["events"]
        )
    )
    # Exactly once, and the second time unchanged.
    again = working.start("ingest/churn", "as_of=1997-06-30")
    api.until(again, "Completed")
    assert api.artifact(again)["status"] == "unchanged"


def test_a_run_that_fails_says_why(working: Host) -> None:
    run = working.start("ingest/churn", "as_of=1997-06-30", f"source={working.folder / 'empty'}")
    said = working.prefect.until(run, "Failed", "Crashed", "Completed")
    assert working.prefect.state(run)[0] == "Failed"
    assert "no users.csv, features.csv, labels.csv; a batch holds one file" in said


def test_a_batch_that_does_not_come_in_time_fails_and_is_not_tried_again(working: Host) -> None:
    run = working.start(
        "ingest/churn", "as_of=1997-07-31", f"source={working.folder / 'late'}", "wait_seconds=1"
    )
    said = working.prefect.until(run, "Failed", "Crashed", "Completed")
    assert "late: is not there after 1 s; deliver the files" in said


def test_a_run_waits_for_its_files(working: Host) -> None:
    late = working.folder / "comes"
    run = working.start("ingest/churn", "as_of=1997-07-31", f"source={late}", "wait_seconds=600")
    working.until_it_waits(run)
    shutil.copytree(SEEDS / "churn" / "month_001", late)
    assert working.prefect.state(run)[0] == "Running"
    (late / "_SUCCESS").touch()
    working.prefect.until(run, "Completed")
    assert working.prefect.artifact(run)["status"] == "stored"


def test_a_cancelled_run_is_cancelled_and_gone(working: Host) -> None:
    run = working.start("ingest/churn", "as_of=1997-08-31", "source=nowhere", "wait_seconds=600")
    working.until_it_waits(run)
    there = working.processes(run)
    assert there
    # What runs is the PEX, unpacked from the store's copy, and not these sources.
    command = Path(f"/proc/{there[0]}/cmdline").read_bytes().decode().split("\0")
    assert any(str(working.folder / "pex_root") in part for part in command), command
    working.prefect.ask(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING"})
    working.prefect.until(run, "Cancelled", "Crashed", "Failed", seconds=60)
    assert working.prefect.state(run)[0] == "Cancelled"
    until_gone(there)


def test_a_killed_run_is_crashed_and_the_next_one_is_well(working: Host) -> None:
    run = working.start("ingest/churn", "as_of=1997-08-31", "source=nowhere", "wait_seconds=600")
    working.until_it_waits(run)
    there = working.processes(run)
    for process in there:
        os.kill(process, signal.SIGKILL)
    working.prefect.until(run, "Crashed", seconds=60)
    until_gone(there)
    after = working.start("ingest/churn", "as_of=1997-08-31")
    working.prefect.until(after, "Completed")
    with connect(working.dsn) as connection:
        days = connection.execute(
            "SELECT as_of::text, count(*) FROM espalier.snapshots GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert days == [("1997-06-30", 1), ("1997-07-31", 1), ("1997-08-31", 1)]


def test_what_was_changed_in_the_store_never_runs(working: Host) -> None:
    [stored] = (working.folder / "store").glob(f"*/{PEX.name}")
    [cached] = (working.folder / "cache").glob(f"*/{PEX.name}")
    whole = stored.stat().st_size
    cached.write_bytes(b"changed here")
    with stored.open("ab") as file:
        file.write(b"changed there")
    try:
        run = working.start("ingest/churn", "as_of=1997-06-30")
        said = working.prefect.until(run, "Failed", "Crashed", "Completed")
    finally:
        os.truncate(stored, whole)
    assert working.prefect.state(run)[0] == "Failed"
    assert "has the sha256" in said
    # Mended, it is fetched anew.
    run = working.start("ingest/churn", "as_of=1997-06-30")
    working.prefect.until(run, "Completed")


def logged(api: Api, run: str, text: str) -> bool:
    """Whether the run's log has a text."""
    asked = {"flow_run_id": {"any_": [run]}}
    return any(text in line["message"] for line in api.ask("/logs/filter", logs=asked))


def until_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + 20
    while left := [one for one in processes if Path(f"/proc/{one}").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
