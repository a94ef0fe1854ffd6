"""PEXes that were deployed and that a worker runs: on a host without our sources."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from espalier.orchestration import distribution
from espalier.orchestration.prefect_server import prefect_environment
from espalier.orchestration.testing import SEEDS, Api, interruptible_children, running_prefect
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import migrate
from espalier.processes import Process, python_environment

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


@dataclass(frozen=True)
class Host:
    """Where `espalier deploy` is called and a worker runs, and what they said."""

    folder: Path
    prefect: Api
    environment: dict[str, str]
    dsn: str
    worker_log: Path = field(default=Path("worker.log"))

    @property
    def pexes(self) -> Path:
        return self.folder / "dist"

    def deploy(self, *options: str, declared: str = DECLARED) -> subprocess.CompletedProcess[str]:
        file = self.folder / "deployments.toml"
        file.write_text(declared)
        argv = [sys.executable, "-m", "espalier.cli.main", "deploy", str(file), *options]
        return self._run([*argv, "--pexes", str(self.pexes)])

    def start(self, *parameters: str, deployment: str = "ingest/churn") -> str:
        """Have a run of the deployment, as a person does; its id."""
        given = [part for one in parameters for part in ("-p", one)]
        argv = [sys.executable, "-m", "prefect", "deployment", "run", deployment, *given]
        done = self._run(argv)
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.search(r"UUID: ([0-9a-f-]{36})", done.stdout)
        assert found is not None, done.stdout
        return found[1]

    def _run(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            cwd=self.folder,
            env={**self.environment, **python_environment()},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def processes(self, run: str) -> list[int]:
        """The processes that a flow run has, and theirs."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"PREFECT__FLOW_RUN_ID={run}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def until_it_waits(self, run: str) -> None:
        """Wait until the run's step is at work."""
        running = {"state": {"type": {"any_": ["RUNNING"]}}}
        until(
            lambda: self.prefect.ask(
                "/task_runs/filter", flow_runs={"id": {"any_": [run]}}, task_runs=running
            ),
            log=self.worker_log,
        )

    def logged(self, run: str, text: str) -> bool:
        """Whether the run's log has a text."""
        asked = {"flow_run_id": {"any_": [run]}}
        return any(text in line["message"] for line in self.prefect.ask("/logs/filter", logs=asked))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    if not PEX.is_file():
        pytest.skip("needs churn-ingest.pex here: ./pants test builds it")
    folder = tmp_path_factory.mktemp("host")
    (folder / "dist").mkdir()
    shutil.copy(PEX, folder / "dist" / PEX.name)
    (folder / "empty").mkdir()
    home = folder / "prefect"
    with embedded.temporary() as server, running_prefect(home) as prefect:
        with connect(server.dsn()) as connection:
            migrate(connection)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "PYTHON"))}
        environment = {
            **inherited,
            **prefect_environment(home),
            "PATH": "/usr/bin:/bin",
            "PREFECT_API_URL": prefect.url,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PEX_ROOT": str(folder / "pex_root"),
            "POSTGRES_HOST": server.host,
            "POSTGRES_PORT": str(server.port),
            "POSTGRES_USER": server.user,
            "POSTGRES_PASSWORD": server.password,
            "POSTGRES_DB": embedded.USER,
            "ESPALIER_DATA_DIR": str(SEEDS),
            "ESPALIER_REPORTS_DIR": str(folder / "reports"),
            "ESPALIER_PEX_STORE": str(folder / "store"),
            "ESPALIER_PEX_CACHE": str(folder / "cache"),
        }
        yield Host(folder, prefect, environment, server.dsn())


@pytest.fixture(scope="module")
def deployed(host: Host) -> Host:
    """The host with the deployment of the PEX."""
    done = host.deploy("--record")
    assert done.returncode == 0, done.stderr
    return host


@pytest.fixture(scope="module")
def working(deployed: Host) -> Iterator[Host]:
    """The same with a worker in an empty folder."""
    log = deployed.folder / "worker.log"
    command = [sys.executable, "-m", "espalier.cli.main", "worker", "--pool", "pexes"]
    with (
        interruptible_children(),
        Process(
            "worker",
            # Not what these tests know by their environment, but the host's.
            ["env", "-i", *_assignments(deployed), *command],
            log=log,
            cwd=deployed.folder / "empty",
        ) as process,
    ):
        pool = "/work_pools/pexes/workers/filter"
        process.wait_until(lambda: bool(deployed.prefect.ask(pool)), seconds=120)
        yield Host(
            deployed.folder, deployed.prefect, deployed.environment, deployed.dsn, worker_log=log
        )


def _assignments(host: Host) -> list[str]:
    return [f"{k}={v}" for k, v in {**host.environment, **python_environment()}.items()]


def test_a_dry_run_shows_all_and_does_nothing(host: Host) -> None:
    (host.pexes / "SHA256SUMS").unlink(missing_ok=True)
    refused = host.deploy("--dry-run")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "its digest is neither declared nor recorded; record what was tested" in refused.stderr
    digest = distribution.digest_of(host.pexes / PEX.name)
    shown = host.deploy("--dry-run", declared=f'{DECLARED}sha256 = "{digest}"\n')
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
    again = deployed.deploy()
    assert again.returncode == 0, again.stderr
    assert again.stdout.endswith("0 of 3 changed, 0 of 1 PEXes put into the store\n"), again.stdout
    changed = DECLARED.replace("limit = 4", "limit = 5").replace("concurrency = 3", "")
    changed += 'cron = "0 1 1 * *"\nparameters = { wait_seconds = 5 }\n'
    shown = deployed.deploy(declared=changed)
    assert shown.returncode == 0, shown.stderr
    assert "~ work pool pexes\n    concurrency_limit: 4 -> 5\n" in shown.stdout
    assert "    concurrency_limit: 3 -> null\n" in shown.stdout
    assert '"wait_seconds": 5' in shown.stdout
    assert '"cron": "0 1 1 * *"' in shown.stdout
    found = deployed.prefect.client.get("/deployments/name/ingest/churn").json()
    assert [one["schedule"]["cron"] for one in found["schedules"]] == ["0 1 1 * *"]
    back = deployed.deploy()
    assert back.stdout.endswith("2 of 3 changed, 0 of 1 PEXes put into the store\n"), back.stdout
    assert deployed.deploy("--dry-run").stdout.endswith("0 of 3 would change; nothing was done\n")


def test_a_pex_that_is_not_the_one_recorded_is_refused(deployed: Host) -> None:
    path = deployed.pexes / PEX.name
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"more")
    try:
        done = deployed.deploy()
    finally:
        os.truncate(path, whole)
    assert (done.returncode, done.stdout) == (4, "")
    assert re.search(r"has the sha256 \w{12}\.\.\., and .*SHA256SUMS records \w{12}", done.stderr)
    declared = deployed.deploy(declared=f'{DECLARED}sha256 = "{"0" * 64}"\n')
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
    done = deployed.deploy(declared=declared)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_completes_with_its_parameters_logs_result_and_heartbeat(working: Host) -> None:
    api = working.prefect
    run = working.start("as_of=1997-06-30")
    api.until(run, "Completed", "Failed", "Crashed")
    assert api.state(run)[0] == "Completed", working.worker_log.read_text()
    found = api.client.get(f"/flow_runs/{run}").json()
    assert found["parameters"] == {"project": "churn", "as_of": "1997-06-30"}
    assert api.artifact(run)["status"] == "stored"
    # Logs and events are sent in the background.
    until(lambda: working.logged(run, "Finished in state Completed"), log=working.worker_log)
    asked = {"any_resource": {"id": [f"prefect.flow-run.{run}"]}}
    until(
        lambda: any(
            event["event"] == "prefect.flow-run.heartbeat"
            for event in api.ask("/events/filter", filter=asked)["events"]
        ),
        log=working.worker_log,
    )
    # Exactly once, and the second time unchanged.
    again = working.start("as_of=1997-06-30")
    api.until(again, "Completed")
    assert api.artifact(again)["status"] == "unchanged"


def test_a_run_that_fails_says_why(working: Host) -> None:
    run = working.start("as_of=1997-06-30", f"source={working.folder / 'empty'}")
    said = working.prefect.until(run, "Failed", "Crashed", "Completed")
    assert working.prefect.state(run)[0] == "Failed"
    assert "no users.csv, features.csv, labels.csv; a batch holds one file" in said


def test_a_batch_that_does_not_come_in_time_fails_and_is_not_tried_again(working: Host) -> None:
    run = working.start("as_of=1997-07-31", f"source={working.folder / 'late'}", "wait_seconds=1")
    said = working.prefect.until(run, "Failed", "Crashed", "Completed")
    assert "late: is not there after 1 s; deliver the files" in said


def test_a_run_waits_for_its_files(working: Host) -> None:
    late = working.folder / "comes"
    run = working.start("as_of=1997-07-31", f"source={late}", "wait_seconds=600")
    working.until_it_waits(run)
    shutil.copytree(SEEDS / "churn" / "month_001", late)
    assert working.prefect.state(run)[0] == "Running"
    (late / "_SUCCESS").touch()
    working.prefect.until(run, "Completed")
    assert working.prefect.artifact(run)["status"] == "stored"


def test_a_cancelled_run_is_cancelled_and_gone(working: Host) -> None:
    run = working.start("as_of=1997-08-31", "source=nowhere", "wait_seconds=600")
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
    run = working.start("as_of=1997-08-31", "source=nowhere", "wait_seconds=600")
    working.until_it_waits(run)
    there = working.processes(run)
    for process in there:
        os.kill(process, signal.SIGKILL)
    working.prefect.until(run, "Crashed", seconds=60)
    until_gone(there)
    after = working.start("as_of=1997-08-31")
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
        run = working.start("as_of=1997-06-30")
        said = working.prefect.until(run, "Failed", "Crashed", "Completed")
    finally:
        os.truncate(stored, whole)
    assert working.prefect.state(run)[0] == "Failed"
    assert "has the sha256" in said
    # Mended, it is fetched anew.
    run = working.start("as_of=1997-06-30")
    working.prefect.until(run, "Completed")


def until(met: Callable[[], object], *, log: Path, seconds: float = 240) -> None:
    """Wait for a condition; the worker's log tells why it is not met."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def until_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + 20
    while left := [one for one in processes if Path(f"/proc/{one}").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
