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
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from churn.project import PROJECT
from espalier.cli import testing
from espalier.cli.testing import Host
from espalier.processes import python_environment
from measure import machine, markdown

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


@dataclass(frozen=True)
class Started:
    """Seconds of one run: the command alone, and from its call to the flow's first task."""

    command: float
    first_line: float


def started(host: Host, deployment: str) -> Started:
    """Have a run of a deployment and wait for its first task and its end."""
    called = time.time()
    run = host.start(deployment)
    command = time.time() - called
    if (state := host.prefect.ended(run)) != "Completed":
        raise RuntimeError(f"the run is {state}: {host.prefect.state(run)[1]}")
    tasks = host.prefect.ask("/task_runs/filter", flow_runs={"id": {"any_": [run]}})
    began = min(datetime.fromisoformat(task["start_time"]) for task in tasks)
    return Started(command, began.timestamp() - called)


@contextmanager
def deployed(folder: Path, pex: Path) -> Iterator[Host]:
    """A host with both deployments and a worker."""
    with testing.host(folder, [pex]) as host:
        day = PROJECT.calendar.as_of(0).isoformat()
        declared = _DECLARED.format(project=PROJECT.name, pex=pex.name, day=day)
        host.deploy_recorded(declared)
        env = python_environment()
        host.prefect.deployment("ingest", "source", "start", {"as_of": day}, env=env)
        with host.working("start"):
            yield host


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pex", type=Path, default=Path("dist/churn-ingest.pex"))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    if not options.pex.is_file():
        parser.error(f"{options.pex} is not there: ./pants package src/python/churn:churn-ingest")
    with (
        tempfile.TemporaryDirectory() as folder,
        deployed(Path(folder) / "host", options.pex) as host,
    ):
        first = started(host, "ingest/pex")
        started(host, "ingest/source")
        found: dict[str, list[Started]] = {"pex": [], "source": []}
        for number in range(options.rounds):
            for side in sorted(found, reverse=number % 2 == 1):
                found[side].append(started(host, f"ingest/{side}"))
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
