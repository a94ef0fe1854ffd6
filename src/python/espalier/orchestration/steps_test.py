"""Steps in real Prefect flow runs, of a deployment and of a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from espalier.errors import (
    BadData,
    BatchLate,
    DependencyUnreachable,
    FeaturesUnavailable,
    ModelNotReady,
)
from espalier.orchestration import steps
from espalier.orchestration.prefect_server import prefect_environment
from espalier.orchestration.testing import Api
from espalier.processes import python_environment

FLOW = """
from pathlib import Path
from prefect import flow
from espalier import errors
from espalier.orchestration import steps
steps.BACKOFF_SECONDS = (0.1, 0.2)
@flow(name="tries")
def tries(error: str, times: int):
    def work():
        with Path("tries.txt").open("a") as file:
            file.write("x")
        if len(Path("tries.txt").read_text()) <= times:
            raise getattr(errors, error)("not now", fix="wait")
        return "done"
    return steps.run("work", lambda: steps.run("inner", work))
if __name__ == "__main__":
    import sys
    tries(sys.argv[1], int(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("error", "is_so"),
    [
        (DependencyUnreachable("x"), True),
        (FeaturesUnavailable("x"), True),
        (ModelNotReady("x"), False),
        (BatchLate("x"), False),
        (BadData("x"), False),
        (ValueError("x"), False),
        (None, False),
    ],
)
def test_which_errors_can_pass(error, is_so) -> None:
    assert steps.passing(error) is is_so


def test_outside_of_a_flow_run_it_is_a_call() -> None:
    assert steps.run("work", lambda: 7) == 7


def start(prefect: Api, folder: Path, *arguments: str, run: str = "") -> int:
    """Run the flow, or the flow run as a worker has it run; the exit code."""
    (folder / "tries_flow.py").write_text(FLOW)
    engine = ["-m", "prefect.flow_engine", "tries_flow:tries"]
    environment = {**python_environment(), **prefect_environment(folder)}
    paths = os.pathsep.join([str(folder), environment["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, *(engine if run else ["-m", "tries_flow", *arguments])],
        cwd=folder,
        env={
            **os.environ,
            **environment,
            "PYTHONPATH": paths,
            "PREFECT_API_URL": prefect.url,
            **({"PREFECT__FLOW_RUN_ID": run} if run else {}),
        },
        timeout=100,
        check=False,
    )
    return done.returncode


def deployed(prefect: Api, error: str, times: int) -> str:
    deployment = prefect.ask(
        "/deployments/",
        name=f"{error}-{times}",
        flow_id=prefect.ask("/flows/", name="tries")["id"],
        entrypoint="tries_flow:tries",
        parameters={"error": error, "times": times},
        pull_steps=[],
    )
    state = {"type": "SCHEDULED", "name": "Scheduled"}
    run = prefect.ask(f"/deployments/{deployment['id']}/create_flow_run", state=state)
    identity: str = run["id"]
    return identity


@pytest.mark.parametrize(
    ("error", "times", "ends"),
    [
        ("DependencyUnreachable", 2, ("Completed", 3)),
        ("DependencyUnreachable", 5, ("Failed", 3)),
        ("BadData", 1, ("Failed", 1)),
    ],
)
def test_a_deployed_run_tries_again_what_can_pass(
    prefect: Api, tmp_path: Path, error, times, ends
) -> None:
    run = deployed(prefect, error, times)
    start(prefect, tmp_path, run=run)
    assert (prefect.state(run)[0], len((tmp_path / "tries.txt").read_text())) == ends


def test_a_run_from_a_shell_is_told_at_once(prefect: Api, tmp_path: Path) -> None:
    assert start(prefect, tmp_path, "DependencyUnreachable", "1") == 1
    assert (tmp_path / "tries.txt").read_text() == "x"
