"""What tests of flows need: the committed batches, and a real Prefect server and its API."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx

from espalier.orchestration.prefect_server import (
    healthy,
    prefect_environment,
    prefect_server_command,
)
from espalier.processes import Process, python_environment, reserved_port
from espalier.project import batch_folder

SEEDS = Path("data/seeds").absolute()


def whole_history(folder: Path, *, months: int) -> Path:
    """The committed batches up to a month as one batch; the folder.

    A first batch brings the history before it, so the flows can train after one ingest.
    """
    folder.mkdir(parents=True)
    sources = [SEEDS / "churn" / batch_folder(number) for number in range(months)]
    for name in ("users", "features", "labels"):
        # Each batch lists all customers, the others what is new.
        parts = [source / f"{name}.csv" for source in sources[-1 if name == "users" else 0 :]]
        header = parts[0].read_text().partition("\n")[0]
        rows = (part.read_text().partition("\n")[2] for part in parts)
        (folder / f"{name}.csv").write_text(header + "\n" + "".join(rows))
    return folder


@contextmanager
def interruptible_children() -> Iterator[None]:
    """Ignored signals are inherited, and who runs the tests may ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Asking(httpx.HTTPTransport):
    """Asks a Prefect server as Prefect's own client does, as its protocol wants.

    Over SQLite it answers 503 when another writer was first and nothing was done: one asks again.
    And it closes a connection after each 503 and after an idle while without saying so, which
    resets a call that is on its way then: each call here has a connection of its own.
    """

    def __init__(self) -> None:
        """Prepare it."""
        super().__init__(limits=httpx.Limits(max_keepalive_connections=0))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The answer; a 503 after half a minute of asking."""
        deadline = time.monotonic() + 30
        while (answer := super().handle_request(request)).status_code == 503:
            if time.monotonic() > deadline:
                break
            answer.read()
        return answer


@dataclass(frozen=True)
class Api:
    """A Prefect server's API."""

    url: str
    client: httpx.Client

    def ask(self, path: str, **body: Any) -> Any:
        """The answer to a POST."""
        answer = self.client.post(path, json=body)
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

    def artifacts(self, run: str) -> dict[str, dict[str, str]]:
        """What the run's artifacts tell, by what they are of, the oldest first."""
        wanted = {"flow_run_id": {"any_": [run]}, "key": {"like_": "espalier-"}}
        told = {}
        for found in self.ask("/artifacts/filter", artifacts=wanted, sort="CREATED_DESC")[::-1]:
            assert found["type"] == "markdown"
            _head, _line, *rows = found["data"].splitlines()
            cells = (row.strip("| ").split(" | ") for row in rows)
            told[found["key"].removeprefix("espalier-")] = dict(cells)
        return told

    def artifact(self, run: str) -> dict[str, str]:
        """What the run's one artifact tells."""
        [told] = self.artifacts(run).values()
        return told

    def start(self, deployment: str, **parameters: Any) -> str:
        """Have a run of a deployment, named as `<flow>/<name>`; its id."""
        found = self.client.get(f"/deployments/name/{deployment}")
        assert found.is_success, found.text
        run = self.ask(
            f"/deployments/{found.json()['id']}/create_flow_run",
            parameters={**found.json()["parameters"], **parameters},
            state={"type": "SCHEDULED", "name": "Scheduled"},
        )
        identity: str = run["id"]
        return identity

    def ended(self, run: str, *, seconds: float = 300) -> str:
        """Wait until the run has ended; the name of its state."""
        self.until(run, "Completed", "Failed", "Crashed", "Cancelled", seconds=seconds)
        return self.state(run)[0]

    def deployment(
        self,
        flow: str,
        name: str,
        pool: str,
        parameters: Mapping[str, str] | None = None,
        *,
        env: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make a deployment of a flow of these sources, named as a module; and its pool, if needed.

        `env` is what its runs have in their environment beside the worker's.
        """
        if self.client.get(f"/work_pools/{pool}").is_error:
            self.ask("/work_pools/", name=pool, type="process")
        entrypoint = f"espalier.orchestration.flows.{flow}:{flow}"
        command = shlex.join([sys.executable, "-m", "espalier.orchestration.entry", entrypoint])
        made: dict[str, Any] = self.ask(
            "/deployments/",
            name=name,
            flow_id=self.ask("/flows/", name=flow)["id"],
            entrypoint=entrypoint,
            parameters={"project": "churn", **(parameters or {})},
            work_pool_name=pool,
            job_variables={"command": command, "env": dict(env or {})},
            pull_steps=[],
        )
        return made

    def deploy(self, name: str, **parameters: str) -> str:
        """Make a deployment of the ingest flow and a run of it; its id."""
        deployment = self.deployment("ingest", name, name, parameters)
        return self.start(f"ingest/{deployment['name']}")


@dataclass(frozen=True)
class FlowDone:
    """How one run of a flow's deployment ended.

    `seconds` count from the request, `artifacts` is what the run's steps told.
    """

    flow: str
    run: str
    state: str
    message: str
    seconds: float
    artifacts: dict[str, dict[str, str]]


# In an order in which each finds what it needs.
EVERY_FLOW = ("ingest", "materialize", "train", "monitor", "score", "loop")


def every_flow(
    api: Api, project: str, *, as_of: date, source: Path | None = None, seconds: float = 600
) -> Iterator[FlowDone]:
    """Run each flow's deployment `<flow>/<project>-<flow>` once, one after the other.

    A worker of their pool must be up.

    Args:
        api: The Prefect server.
        project: The ML product.
        as_of: The day for all of them; what is known then must be enough to train.
        source: The folder with that day's batch; default: the flows' own.
        seconds: How long to wait for each.
    """
    for flow in EVERY_FLOW:
        parameters: dict[str, Any] = {"as_of": as_of.isoformat()}
        if flow in ("ingest", "loop"):
            parameters["wait_seconds"] = 0
            if source is not None:
                parameters["source"] = str(source)
        asked = time.monotonic()
        run = api.start(f"{flow}/{project}-{flow}", **parameters)
        api.ended(run, seconds=seconds)
        took = time.monotonic() - asked
        yield FlowDone(flow, run, *api.state(run), took, api.artifacts(run))


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
            with httpx.Client(base_url=url, timeout=30, transport=Asking()) as client:
                yield Api(url, client)
