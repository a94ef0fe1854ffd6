"""What tests of flows need: the committed batches, and a real Prefect server and its API."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from espalier.orchestration.prefect_server import (
    healthy,
    prefect_environment,
    prefect_server_command,
)
from espalier.processes import Process, python_environment, reserved_port

SEEDS = Path("data/seeds").absolute()
INGEST = "espalier.orchestration.flows.ingest:ingest"


@contextmanager
def interruptible_children() -> Iterator[None]:
    """Ignored signals are inherited, and who runs the tests may ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class Api:
    """A Prefect server's API."""

    url: str
    client: httpx.Client

    def ask(self, path: str, **body: Any) -> Any:
        """The answer to a POST, asked as Prefect's client asks.

        A server over SQLite answers 503 when another writer was first and nothing was done; its
        protocol has the client ask again.
        """
        deadline = time.monotonic() + 30
        while (answer := self.client.post(path, json=body)).status_code == 503:
            assert time.monotonic() < deadline, answer.text
        assert answer.is_success, answer.text
        return answer.json()

    def runs(self) -> list[dict[str, Any]]:
        """All flow runs, newest first."""
        found: list[dict[str, Any]] = self.ask("/flow_runs/filter", sort="EXPECTED_START_TIME_DESC")
        return found

    def state(self, run: str) -> tuple[str, str]:
        """The name and the message of a run's state."""
        state = self.client.get(f"/flow_runs/{run}").json()["state"]
        return state["name"], state["message"] or ""

    def until(self, run: str, *names: str, seconds: float = 240) -> str:
        """Wait until the run is in one of these states; what its state says."""
        deadline = time.monotonic() + seconds
        while (state := self.state(run))[0] not in names:
            assert time.monotonic() < deadline, state
            time.sleep(0.2)
        return state[1]

    def artifact(self, run: str) -> dict[str, str]:
        """What the run's artifact tells."""
        wanted = {"flow_run_id": {"any_": [run]}, "key": {"like_": "espalier-"}}
        [found] = self.ask("/artifacts/filter", artifacts=wanted)
        assert found["type"] == "markdown"
        _head, _line, *rows = found["data"].splitlines()
        cells = (row.strip("| ").split(" | ") for row in rows)
        return dict(cells)

    def deploy(self, name: str, **parameters: str) -> str:
        """Make a deployment of the ingest flow, named as a module, and a run of it; its id."""
        pool = self.ask("/work_pools/", name=name, type="process")["name"]
        command = shlex.join([sys.executable, "-m", "espalier.orchestration.entry", INGEST])
        deployment = self.ask(
            "/deployments/",
            name=name,
            flow_id=self.ask("/flows/", name="ingest")["id"],
            entrypoint=INGEST,
            parameters={"project": "churn", **parameters},
            work_pool_name=pool,
            job_variables={"command": command},
            pull_steps=[],
        )
        run = self.ask(
            f"/deployments/{deployment['id']}/create_flow_run",
            state={"type": "SCHEDULED", "name": "Scheduled"},
        )
        identity: str = run["id"]
        return identity


@contextmanager
def running_prefect(home: Path) -> Iterator[Api]:
    """A Prefect server whose files are in `home`."""
    with reserved_port() as port:
        url = f"http://127.0.0.1:{port}/api"
        process = Process(
            "Prefect",
            prefect_server_command(port),
            log=home / "server.log",
            env={**python_environment(), **prefect_environment(home)},
        )
        with process:
            process.wait_until(lambda: healthy(url), seconds=180)
            with httpx.Client(base_url=url, timeout=30) as client:
                yield Api(url, client)
