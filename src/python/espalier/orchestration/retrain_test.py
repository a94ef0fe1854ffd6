"""The loop asks a worker for a training: a real Prefect server, worker, MLflow and training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from espalier.orchestration.conftest import Programs, ended
from espalier.orchestration.testing import Api, interruptible_children, whole_history
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.processes import Process
from espalier.registry import ledger, mlflow_server, versions

AS_OF = "--as-of=1997-09-30"
POOL = "trainers"
# How long to wait for a loop that trains; much more than it takes.
TRAINING_SECONDS = 300


@pytest.fixture
def mlflow(server: embedded.Server, database: str, tmp_path: Path) -> Iterator[str]:
    name = f"{database}_mlflow"
    embedded.create_database(server, name)
    log = tmp_path / "mlflow.log"
    with mlflow_server.serve(server.dsn(name), tmp_path / "artifacts", log=log) as uri:
        yield uri


@pytest.fixture
def looping(programs: Programs, prefect: Api, mlflow: str, tmp_path: Path) -> Iterator[Programs]:
    """The loop's program, beside a worker that can train."""
    prefect.deployment("train", "churn-train", POOL)
    made = replace(
        programs,
        environment={
            **programs.environment,
            "PREFECT_API_URL": prefect.url,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "MLFLOW_TRACKING_URI": mlflow,
        },
    )
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process"]
    worker = Process(
        "worker",
        ["env", "-i", *[f"{k}={v}" for k, v in made.environment.items()], *command, "-p", POOL],
        log=tmp_path / "worker.log",
        cwd=tmp_path,
    )
    with interruptible_children(), worker:
        worker.wait_until(
            lambda: prefect.client.get(f"/work_pools/{POOL}").json()["status"] == "READY",
            seconds=120,
        )
        yield made
    prefect.client.delete(f"/work_pools/{POOL}").raise_for_status()


def test_a_loop_that_is_killed_waits_again_for_the_training_that_it_asked_for(
    looping: Programs, prefect: Api, server: embedded.Server, database: str, mlflow: str
) -> None:
    source = f"--source={whole_history(looping.folder / 'batch', months=4)}"
    with training_held(server.dsn(database)):
        first = looping.start(AS_OF, source, flow="loop")
        run = asked(prefect, first)
        first.kill()
        ended(first)
        second = looping.start(AS_OF, source, flow="loop")
        until(lambda: waits_for_a_training(prefect), second)
        assert asked(prefect, second) == run
    done = ended(second, seconds=TRAINING_SECONDS)
    assert (done.code, done.err) == (0, "")
    assert (done.facts["decision"], done.facts["outcome"]) == ("train", "promoted")
    assert done.facts["trained"] == done.facts["champion"] == "1"
    assert trainings(prefect) == [run]
    assert [one.version for one in versions.list_versions(mlflow, "churn")] == ["1"]
    key = versions.list_versions(mlflow, "churn")[0].tags["asked_by"]
    assert key.startswith("churn-action-")
    assert prefect.client.get(f"/flow_runs/{run}").json()["tags"] == [key]


def test_a_training_that_crashed_is_asked_for_again_by_the_next_loop(
    looping: Programs, prefect: Api, server: embedded.Server, database: str, mlflow: str
) -> None:
    before = trainings(prefect)
    source = f"--source={whole_history(looping.folder / 'batch', months=4)}"
    with training_held(server.dsn(database)):
        first = looping.start(AS_OF, source, flow="loop")
        run = asked(prefect, first, beside=before)
        until(lambda: prefect.state(run)[0] == "Running", first)
        kill(run)
        done = ended(first, seconds=TRAINING_SECONDS)
    assert done.code == 3, done
    assert "of train/churn-train ended as Crashed" in done.reason
    done = looping.run(AS_OF, source, flow="loop", seconds=TRAINING_SECONDS)
    assert (done.code, done.err) == (0, "")
    assert (done.facts["outcome"], done.facts["champion"]) == ("promoted", "1")
    assert len(trainings(prefect)) == len(before) + 2
    # Once more, and nothing is asked for.
    again = looping.run(AS_OF, source, flow="loop", seconds=TRAINING_SECONDS)
    assert again.facts == {**done.facts, "ingest": "unchanged"}
    assert len(trainings(prefect)) == len(before) + 2
    assert len(versions.list_versions(mlflow, "churn")) == 1


def test_a_training_that_labels_do_not_allow_is_told_by_its_own_words(looping: Programs) -> None:
    source = f"--source={whole_history(looping.folder / 'batch', months=1)}"
    done = looping.run("--as-of=1997-06-30", source, flow="loop", seconds=TRAINING_SECONDS)
    assert (done.code, done.facts["outcome"]) == (0, "impossible"), done
    assert done.facts["gate"].startswith("labels from 1997-03-31 to 1997-03-31 are too few months")


@contextmanager
def training_held(dsn: str) -> Iterator[None]:
    """A training waits at its first look at the champion, as while somebody promotes."""
    with connect(dsn) as connection, ledger.exclusive(connection, "churn"):
        yield


def trainings(prefect: Api) -> list[str]:
    flows = {"name": {"any_": ["train"]}}
    return [run["id"] for run in prefect.ask("/flow_runs/filter", flows=flows)]


def asked(prefect: Api, loop: subprocess.Popen[str], *, beside: list[str] | None = None) -> str:
    """Wait for the one training that was asked for; its id."""
    until(lambda: set(trainings(prefect)) - set(beside or []), loop)
    [found] = set(trainings(prefect)) - set(beside or [])
    return found


def waits_for_a_training(prefect: Api) -> bool:
    """Whether the newest loop has come to its wait."""
    flows = {"name": {"any_": ["loop"]}}
    newest = prefect.ask("/flow_runs/filter", flows=flows, sort="EXPECTED_START_TIME_DESC")[0]
    runs = {"id": {"any_": [newest["id"]]}}
    tasks = prefect.ask("/task_runs/filter", flow_runs=runs)
    return any("run_deployment" in task["task_key"] for task in tasks)


def kill(run: str) -> None:
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"PREFECT__FLOW_RUN_ID={run}".encode() in (entry / "environ").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)


def until(met: Callable[[], object], loop: subprocess.Popen[str], seconds: float = 300) -> None:
    """Wait for a condition while a loop runs."""
    deadline = time.monotonic() + seconds
    while not met():
        assert loop.poll() is None, loop.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
