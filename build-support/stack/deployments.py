"""Runs every deployment once through the worker, and waits for how it ends."""

from __future__ import annotations

import json
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from stack.compose import Failed

_AGAIN_SECONDS = 30
_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


@dataclass(frozen=True)
class Run:
    """A flow run: its deployment as Prefect names it, and its id."""

    deployment: str
    id: str


class Prefect:
    """Prefect's API, as far as this needs it."""

    def __init__(self, api_url: str) -> None:
        """Nothing is asked yet."""
        self._url = api_url

    def start(self, deployment: str, parameters: Mapping[str, Any]) -> Run:
        """Have a run of a deployment, with these of its parameters."""
        found = self._ask(f"/deployments/name/{deployment}")
        asked = {
            "parameters": {**found["parameters"], **parameters},
            "state": {"type": "SCHEDULED"},
        }
        made = self._ask(f"/deployments/{found['id']}/create_flow_run", asked)
        return Run(deployment, made["id"])

    def wait(self, run: Run, *, seconds: float) -> float:
        """Wait until a run is Completed; how long it ran, in seconds."""
        deadline = time.monotonic() + seconds
        while True:
            found = self._ask(f"/flow_runs/{run.id}")
            kind, state = found["state_type"], found["state"]
            if kind in _ENDED:
                break
            if time.monotonic() > deadline:
                raise Failed(f"{run.deployment} is {state['name']} after {seconds:.0f} s")
            time.sleep(0.5)
        if kind != "COMPLETED":
            raise Failed(f"{run.deployment} is {state['name']}: {state['message']}")
        ran: float = found["total_run_time"]
        return ran

    def _ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310  # http to this machine
            self._url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        deadline = time.monotonic() + _AGAIN_SECONDS
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                # Over SQLite: another writer was first and nothing was done; its client asks again.
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                    raise Failed(f"Prefect at {path}: {error}") from error
                time.sleep(0.2)


def declared(path: Path) -> list[str]:
    """The deployments of the declared file, as Prefect names them; `loop`, which is all, last."""
    found = tomllib.loads(path.read_text())["deployment"]
    names = [f"{one['flow']}/{one['name']}" for one in found]
    return sorted(names, key=lambda name: name.startswith("loop/"))
