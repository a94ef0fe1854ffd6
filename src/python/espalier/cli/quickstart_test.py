"""Quickstart as a person runs it, again and again on the same state: all of it is real."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from espalier.orchestration.testing import interruptible_children
from espalier.postgres.connect import connect
from espalier.postgres.embedded import USER, Server
from espalier.prediction.v1 import prediction_pb2, prediction_pb2_grpc
from espalier.processes import python_environment

SERVICE = "espalier.prediction.v1.PredictionService"
BATCHES = 13
OURS = ("ESPALIER_", "POSTGRES_", "PREFECT", "MLFLOW_")


@dataclass(frozen=True)
class Run:
    """One quickstart, its output in files."""

    state: Path
    process: subprocess.Popen[bytes]
    files: tuple[Path, Path]

    @property
    def out(self) -> str:
        """What it has printed."""
        return self.files[0].read_text()

    @property
    def err(self) -> str:
        """What it has printed to the standard error."""
        return self.files[1].read_text()

    def until(self, ready: Callable[[], object], seconds: float = 150) -> None:
        """Wait until `ready()` is true, while the run goes on."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert self.process.poll() is None, self.out + self.err
            assert time.monotonic() < deadline, self.out + self.err
            time.sleep(0.02)

    def until_it_says(self, pattern: str) -> re.Match[str]:
        """Wait until it has printed what matches `pattern`."""
        self.until(lambda: re.search(pattern, self.out, re.MULTILINE))
        found = re.search(pattern, self.out, re.MULTILINE)
        assert found
        return found

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal, if any, and wait for the end; give the exit code."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(150)

    def dsn(self) -> str:
        """Its PostgreSQL."""
        port = self.until_it_says(r"s  PostgreSQL +16, on port (\d+)$")[1]
        password = self.state / "sample" / "churn" / "postgres" / "espalier.password"
        return Server("127.0.0.1", int(port), USER, password.read_text()).dsn()

    def address(self, transport: str) -> str:
        """Where a transport is served, as the run says under "Everything is running"."""
        return self.until_it_says(rf"^  {transport} +(?:http://)?(\S+:\d+)")[1]


@dataclass(frozen=True)
class Quickstart:
    """Starts runs on one state folder."""

    root: Path

    @property
    def state(self) -> Path:
        """The folder that all runs share."""
        return self.root / "the-state-of-this-test"

    def start(self, *arguments: str) -> Run:
        """Start a run."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
        number = len(list(self.root.glob("*.out")))
        files = self.root / f"{number}.out", self.root / f"{number}.err"
        with files[0].open("wb") as out, files[1].open("wb") as err, interruptible_children():
            process = subprocess.Popen(
                [sys.executable, "-m", "espalier.cli.main", "quickstart", *arguments],
                cwd=self.root,
                env={
                    **inherited,
                    **python_environment(),
                    "ESPALIER_STATE_DIR": str(self.state),
                    "ESPALIER_DATA_DIR": str(Path("data/seeds").absolute()),
                    "ESPALIER_REPORTS_DIR": str(self.root / "reports"),
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        return Run(self.state, process, files)

    def left(self) -> list[str]:
        """The processes that still know the state folder."""
        return [said for pid, said in processes() if pid != os.getpid() and str(self.state) in said]

    def leaves_nothing(self, seconds: float = 60) -> bool:
        """Whether all processes of a run that was killed end."""
        deadline = time.monotonic() + seconds
        while self.left():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


def processes() -> Iterator[tuple[int, str]]:
    """Each process, and what it says of itself: its arguments, environment and folder."""
    if not Path("/proc/self/environ").exists():
        listed = subprocess.run(
            ["ps", "-axEww", "-o", "pid=,command="], capture_output=True, text=True, check=True
        )
        for line in listed.stdout.splitlines():
            pid, _, said = line.strip().partition(" ")
            yield int(pid), said
        return
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            raw = (folder / "cmdline").read_bytes() + b" " + (folder / "environ").read_bytes()
            where = (folder / "cwd").readlink()
        except OSError:
            # It has ended meanwhile, or is another user's.
            continue
        yield int(folder.name), f"{raw.decode(errors='replace')} {where}"


def snapshots(dsn: str) -> list[str]:
    with connect(dsn) as connection:
        there = connection.execute("SELECT to_regclass('espalier.snapshots')").fetchone()
        if there == (None,):
            return []
        found = connection.execute("SELECT as_of::text FROM espalier.snapshots ORDER BY id")
        return [as_of for (as_of,) in found.fetchall()]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    made = Quickstart(tmp_path_factory.mktemp("quickstart"))
    yield made
    assert made.leaves_nothing(), made.left()


# Each of these goes on from the state that the one before it left.


@pytest.fixture(scope="module")
def interrupted(quickstart: Quickstart) -> tuple[int, Run]:
    """A first run, interrupted while its servers start and its libraries load."""
    run = quickstart.start()
    try:
        run.until_it_says("s  PostgreSQL")
        return run.end(signal.SIGINT), run
    finally:
        run.process.kill()


@pytest.fixture(scope="module")
def killed(quickstart: Quickstart, interrupted: tuple[int, Run]) -> int:
    """A second run, killed in the middle of ingest; how many snapshots were stored just before."""
    run = quickstart.start()
    try:
        dsn = run.dsn()
        run.until(lambda: snapshots(dsn))
        stored = len(snapshots(dsn))
    finally:
        run.process.kill()
        run.process.wait()
    assert "ingest" not in run.out
    return stored


@pytest.fixture(scope="module")
def kept(quickstart: Quickstart, killed: int) -> Iterator[Run]:
    """A third run, which completes, with its servers left running."""
    assert quickstart.leaves_nothing(), quickstart.left()
    run = quickstart.start("--keep")
    try:
        run.until_it_says("^Everything is running")
        run.until_it_says("^  Logs ")
        yield run
    finally:
        run.process.kill()
        run.process.wait()


@pytest.fixture(scope="module")
def ended(kept: Run) -> int:
    """The exit code of that run after SIGTERM."""
    return kept.end(signal.SIGTERM)


def test_an_interrupted_run_says_so_and_leaves_no_process(
    quickstart: Quickstart, interrupted: tuple[int, Run]
):
    code, run = interrupted
    assert code == 130
    assert run.err == "espalier: interrupted; nothing is left running\n"
    assert quickstart.left() == []


def test_a_killed_run_leaves_no_process(quickstart: Quickstart, killed: int):
    assert 1 <= killed < BATCHES
    assert quickstart.leaves_nothing(), quickstart.left()


def test_the_next_run_completes_with_each_snapshot_once(
    quickstart: Quickstart, kept: Run, killed: int
):
    new = int(kept.until_it_says(rf"s  ingest +(\d+) new snapshots of {BATCHES} batches")[1])
    # The killed run may have stored one more after we looked.
    assert 0 < new <= BATCHES - killed
    stored = snapshots(kept.dsn())
    assert len(stored) == len(set(stored)) == BATCHES
    assert stored == sorted(stored)
    kept.until_it_says(r"s  materialize +2,357 entities online, as of 1998-06-30$")
    kept.until_it_says(r"s  train +version 1 of [\d,]+ rows, promoted$")
    report = kept.until_it_says(r"^ +(\S+/evidently/churn/1998-06-30\.html)$")[1]
    assert Path(report).is_file()
    assert kept.err == ""
    # Only a path may be longer: it is there to be copied.
    root = str(quickstart.root)
    assert [li for li in kept.out.splitlines() if len(li) > 80 and root not in li] == []
    assert "\x1b" not in kept.out


def test_the_kept_server_answers_over_grpc(kept: Run):
    entity_id = kept.until_it_says(r"^  Prediction user (\S+): ")[1]
    with grpc.insecure_channel(kept.address("gRPC")) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

        reflected = ProtoReflectionDescriptorDatabase(channel)
        assert SERVICE in reflected.get_services()
        described = DescriptorPool(reflected).FindServiceByName(SERVICE)
        assert {m.name for m in described.methods} == {
            "Predict",
            "BatchPredict",
            "StreamPredict",
            "GetModel",
        }

        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        request = prediction_pb2.PredictRequest(entity_id=entity_id)
        predicted = stub.Predict(request, timeout=10)
        assert (predicted.entity_id, predicted.model.version) == (entity_id, "1")
        assert predicted.status == prediction_pb2.ENTITY_STATUS_OK
        assert 0 < predicted.score < 1
        assert f"score {predicted.score:.4f} (gRPC)" in kept.out
        with pytest.raises(grpc.RpcError) as error:
            stub.Predict(prediction_pb2.PredictRequest(entity_id="nobody"), timeout=10)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


def test_the_kept_server_answers_over_http(kept: Run):
    entity_id = kept.until_it_says(r"^  Prediction user (\S+): ")[1]
    with httpx.Client(base_url=f"http://{kept.address('HTTP')}", timeout=10) as client:
        known = client.post("/predict", json={"user_id": entity_id})
        assert known.status_code == 200
        assert known.json()["user_id"] == entity_id
        assert known.json()["prediction"] in (0, 1)
        assert client.post("/predict", json={"user_id": "nobody"}).status_code == 404
        assert client.get("/health").json() == {"status": "alive"}
        assert client.get("/ready").json() == {"ready": True, "missing": []}
        metrics = client.get("/metrics")
        assert metrics.status_code == 200
        assert 'version="1"' in metrics.text


def test_a_second_run_on_the_same_state_is_2_and_one_line(quickstart: Quickstart, kept: Run):
    second = quickstart.start()
    assert second.end() == 2
    folder = quickstart.state / "sample" / "churn"
    assert second.err == (
        f"espalier: another quickstart is using {folder}; "
        "end it, or set ESPALIER_STATE_DIR to another folder\n"
    )
    assert second.out == ""
    assert kept.process.poll() is None


def test_told_to_end_the_kept_run_ends_all(quickstart: Quickstart, kept: Run, ended: int):
    assert ended == 0
    assert kept.err == ""
    assert quickstart.left() == []


def test_a_run_on_a_complete_state_has_nothing_to_do(quickstart: Quickstart, ended: int):
    run = quickstart.start()
    try:
        assert run.end() == 0, run.out + run.err
    finally:
        run.process.kill()
    run.until_it_says(rf"s  ingest +0 new snapshots of {BATCHES} batches, 0 new rows$")
    run.until_it_says(r"s  train +version 1 is of the newest snapshot already$")
    run.until_it_says(r"^Next:$")
    assert run.err == ""
    assert quickstart.left() == []
