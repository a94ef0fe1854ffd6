"""From `prefect deployment run` to a flow's first line: the flow as a PEX against its source.

One Prefect server and one worker, as `espalier worker` starts it; two deployments of the ingest
flow. One runs the PEX from the store, its digest compared; the other runs the same flow from the
source folder in the environment of this benchmark. Runs take turns. Time counts from the moment the
command is called, so it holds the command's own start (told beside it), the worker's poll (each
second here) and the start of the flow's process, to the moment the flow's first task begins. The
PEX's very first run also fetches and unpacks it; that one is told apart.

    ./pants package src/python/churn:churn-ingest
    ./pants run benchmarks/flow_start_benchmark.py -- --pex dist/churn-ingest.pex
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from churn.project import PROJECT
from espalier.orchestration import prefect_server
from espalier.orchestration.prefect_server import prefect_environment, prefect_server_command
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import migrate
from espalier.processes import Process, python_environment, reserved_port
from measure import machine, markdown

_FLOW = "espalier.orchestration.flows.ingest:ingest"
_DECLARED = """
[pool]
name = "start"

[[deployment]]
name = "pex"
flow = "ingest"
project = "{project}"
pex = "{pex}"
parameters = {{ as_of = "{day}" }}
"""
_PATIENCE_SECONDS = 600


@dataclass(frozen=True)
class Started:
    """Seconds of one run: the command alone, and from its call to the flow's first task."""

    command: float
    first_line: float


@dataclass(frozen=True)
class Place:
    """A server, a worker, and what they need."""

    folder: Path
    environment: dict[str, str]
    client: httpx.Client

    def run(self, deployment: str) -> Started:
        """Have a run and wait for its first task and its end."""
        called = time.time()
        done = self.call("prefect", "deployment", "run", deployment)
        command = time.time() - called
        found = re.search(r"UUID: ([0-9a-f-]{36})", done)
        assert found is not None, done
        self._completed(found[1])
        asked = {"flow_runs": {"id": {"any_": [found[1]]}}}
        tasks = self.client.post("/task_runs/filter", json=asked).json()
        began = min(datetime.fromisoformat(task["start_time"]) for task in tasks)
        return Started(command, began.timestamp() - called)

    def _completed(self, run: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            state = self.client.get(f"/flow_runs/{run}").json()["state"]
            if state["type"] == "COMPLETED":
                return
            if state["type"] in ("FAILED", "CRASHED", "CANCELLED") or time.monotonic() > deadline:
                raise RuntimeError(f"the run is {state['name']}: {state['message']}")
            time.sleep(0.2)

    def call(self, module: str, *arguments: str) -> str:
        """What a program says; fails when that does."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.folder,
            env={**os.environ, **python_environment(), **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{module} {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout


@contextmanager
def place(folder: Path, pex: Path) -> Iterator[Place]:
    """The servers, both deployments, and a worker."""
    with ExitStack() as exits:
        database = exits.enter_context(embedded.temporary())
        with connect(database.dsn()) as connection:
            migrate(connection)
        port = exits.enter_context(reserved_port())
        url = f"http://127.0.0.1:{port}/api"
        environment = {
            **prefect_environment(folder / "prefect"),
            "PREFECT_API_URL": url,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PEX_ROOT": str(folder / "pex_root"),
            "POSTGRES_HOST": database.host,
            "POSTGRES_PORT": str(database.port),
            "POSTGRES_USER": database.user,
            "POSTGRES_PASSWORD": database.password,
            "POSTGRES_DB": embedded.USER,
            "ESPALIER_DATA_DIR": str(Path("data/seeds").absolute()),
            "ESPALIER_REPORTS_DIR": str(folder / "reports"),
            "ESPALIER_PEX_STORE": str(folder / "store"),
            "ESPALIER_PEX_CACHE": str(folder / "cache"),
        }
        server = Process(
            "Prefect",
            prefect_server_command(port),
            log=folder / "server.log",
            env={**python_environment(), **environment},
        )
        exits.enter_context(server)
        server.wait_until(lambda: prefect_server.healthy(url), seconds=_PATIENCE_SECONDS)
        client = exits.enter_context(httpx.Client(base_url=url, timeout=30))
        made = Place(folder, environment, client)
        _deploy(made, pex)
        worker = Process(
            "worker",
            [sys.executable, "-m", "espalier.cli.main", "worker", "--pool", "start"],
            log=folder / "worker.log",
            env={**python_environment(), **environment},
            cwd=folder,
        )
        exits.enter_context(worker)
        workers = "/work_pools/start/workers/filter"
        worker.wait_until(
            lambda: bool(client.post(workers, json={}).json()), seconds=_PATIENCE_SECONDS
        )
        yield made


def _deploy(made: Place, pex: Path) -> None:
    pexes = made.folder / "pexes"
    pexes.mkdir()
    (pexes / pex.name).symlink_to(pex.absolute())
    day = PROJECT.calendar.as_of(0).isoformat()
    file = made.folder / "deployments.toml"
    file.write_text(_DECLARED.format(project=PROJECT.name, pex=pex.name, day=day))
    made.call("espalier.cli.main", "deploy", str(file), "--pexes", str(pexes), "--record")
    command = [sys.executable, "-m", "espalier.orchestration.entry", _FLOW]
    body: dict[str, Any] = {
        "name": "source",
        "flow_id": made.client.post("/flows/", json={"name": "ingest"}).json()["id"],
        "entrypoint": _FLOW,
        "parameters": {"project": PROJECT.name, "as_of": day},
        "work_pool_name": "start",
        "job_variables": {"command": shlex.join(command), "env": python_environment()},
        "pull_steps": [],
    }
    made.client.post("/deployments/", json=body).raise_for_status()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pex", type=Path, default=Path("dist/churn-ingest.pex"))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    if not options.pex.is_file():
        parser.error(f"{options.pex} is not there: ./pants package src/python/churn:churn-ingest")
    with tempfile.TemporaryDirectory() as folder, place(Path(folder), options.pex) as made:
        first = made.run("ingest/pex")
        made.run("ingest/source")
        found: dict[str, list[Started]] = {"pex": [], "source": []}
        for number in range(options.rounds):
            for side in sorted(found, reverse=number % 2 == 1):
                found[side].append(made.run(f"ingest/{side}"))
                print(f"round {number + 1}: {side} {found[side][-1]}", file=sys.stderr)
    lines = [["PEX, first run: fetched and unpacked", "1", *[f"{first.first_line:.2f}"] * 3, ""]]
    base = statistics.median(one.first_line for one in found["source"])
    for side, runs in found.items():
        seconds = [one.first_line for one in runs]
        middle = statistics.median(seconds)
        shown = [f"{value:.2f}" for value in (min(seconds), middle, max(seconds))]
        lines.append([side, str(len(runs)), *shown, f"{middle / base:.2f}"])
    print(markdown(["side", "rounds", "min s", "median s", "max s", "x source"], lines))
    command = statistics.median(one.command for runs in found.values() for one in runs)
    print(f"\nof it the command itself: median {command:.2f} s\n\n{machine()}")


if __name__ == "__main__":
    main()
