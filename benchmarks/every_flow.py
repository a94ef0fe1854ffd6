"""Every flow as its PEX, deployed and run by a worker on a host without our sources.

PostgreSQL, MLflow and Prefect are real; `espalier.pex` deploys what deploy/prefect declares and is
the worker, started in an empty folder with PATH=/usr/bin:/bin. Each flow runs once, to Completed;
then one run each that fails, that is cancelled and that is killed, and one after them. Ends with 1
when a run does not end as it must.

    ./pants package ::
    ./pants run benchmarks/every_flow.py -- --dist dist
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from churn.project import PROJECT
from espalier.cli import testing
from espalier.cli.testing import Host
from espalier.orchestration.testing import EVERY_FLOW, every_flow, whole_history
from measure import machine, markdown

# The first month after which a horizon lies between labels to train on and labels to judge by.
MONTHS = 4
_DECLARED = Path("deploy/prefect/deployments.toml")


@dataclass(frozen=True)
class Outcome:
    """What a run was to end as, and how it ended."""

    what: str
    wanted: str
    state: str
    seconds: float
    told: str

    @property
    def right(self) -> bool:
        """Whether it ended as it was to."""
        return self.state == self.wanted


def outcomes(host: Host, pool: str) -> Iterator[Outcome]:
    """Deploy everything and have all of it run, one after the other."""
    host.deploy_recorded(_DECLARED.read_text())
    day = PROJECT.calendar.as_of(MONTHS - 1)
    batch = whole_history(host.folder / "batch", months=MONTHS)
    with host.working(pool):
        for one in every_flow(host.prefect, PROJECT.name, as_of=day, source=batch):
            told = one.message or ", ".join(one.artifacts)
            yield Outcome(one.flow, "Completed", one.state, one.seconds, told)
        after = PROJECT.calendar.as_of(MONTHS).isoformat()
        yield _failed(host, after)
        yield from _stopped(host, after)
        yield _run(host, "ingest after them", "Completed", f"as_of={after}")


def _run(host: Host, what: str, wanted: str, *parameters: str) -> Outcome:
    asked = time.monotonic()
    run = host.start(f"ingest/{PROJECT.name}-ingest", *parameters)
    state = host.prefect.ended(run)
    took = time.monotonic() - asked
    told = host.prefect.state(run)[1] or ", ".join(host.prefect.artifacts(run))
    return Outcome(what, wanted, state, took, told)


def _failed(host: Host, day: str) -> Outcome:
    source = host.folder / "nothing"
    source.mkdir()
    return _run(host, "ingest of nothing", "Failed", f"as_of={day}", f"source={source}")


def _stopped(host: Host, day: str) -> Iterator[Outcome]:
    """A run that is cancelled and one that is killed, both at work; their processes must go."""
    for wanted in ("Cancelled", "Crashed"):
        parameters = (f"as_of={day}", "source=nowhere", "wait_seconds=600")
        run = host.start(f"ingest/{PROJECT.name}-ingest", *parameters)
        host.until_it_waits(run)
        there, stopped = host.processes(run), time.monotonic()
        if wanted == "Cancelled":
            host.prefect.ask(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING"})
        else:
            for process in there:
                os.kill(process, signal.SIGKILL)
        state = host.prefect.ended(run)
        took = time.monotonic() - stopped
        host.until(lambda run=run: not host.processes(run), seconds=20)  # type: ignore[misc]
        told = f"{host.prefect.state(run)[1]} ({len(there)} processes, all gone)"
        yield Outcome(f"ingest that is {wanted.lower()}", wanted, state, took, told)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all of it; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dist", type=Path, default=Path("dist"), help="the folder of PEXes")
    options = parser.parse_args(arguments)
    pexes = [options.dist / f"{PROJECT.name}-{flow}.pex" for flow in EVERY_FLOW]
    espalier = options.dist / "espalier.pex"
    if missing := [str(path) for path in (*pexes, espalier) if not path.is_file()]:
        parser.error(f"{', '.join(missing)}: not there; ./pants package ::")
    found = []
    with (
        tempfile.TemporaryDirectory() as folder,
        testing.host(Path(folder), pexes, espalier=espalier, mlflow=True) as host,
    ):
        for one in outcomes(host, "espalier"):
            print(f"{one.what}: {one.state} after {one.seconds:.1f} s", file=sys.stderr)
            found.append(one)
    header = ["run", "state", "s", "its message, or its artifacts"]
    rows = [[one.what, one.state, f"{one.seconds:.1f}", one.told] for one in found]
    print(f"{markdown(header, rows)}\n\n{machine()}")
    wrong = [one.what for one in found if not one.right]
    if wrong:
        print(f"not as it must be: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
