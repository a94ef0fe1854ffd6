"""Runs the prediction server as a process, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from espalier.postgres.testing import variables
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from espalier.processes import python_environment, reserved_port

SERVICE = "espalier.prediction.v1.PredictionService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Running:
    """A server process, a channel to it, and a client of its HTTP side."""

    process: subprocess.Popen[str]
    channel: grpc.Channel
    http: httpx.Client
    grpc_address: str
    log: Path

    def __post_init__(self) -> None:
        """Make the stub."""
        self.stub = pb_grpc.PredictionServiceStub(self.channel)

    def health(self, service: str = "") -> int:
        """What the health service says of `service`."""
        stub = health_pb2_grpc.HealthStub(self.channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        status: int = answer.status
        return status

    def events(self) -> list[str]:
        """What the server logged so far, by its events."""
        return [json.loads(line)["event"] for line in self.log.read_text().splitlines()]

    def line(self) -> str:
        """The next line that the server writes to standard output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def until(self, condition: Callable[[], object], seconds: float = 20) -> None:
        """Wait until `condition()` is true; fail when the process ends before, or it takes long."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def ready_text(self) -> str:
        """The body of `/ready`; empty while nothing listens."""
        try:
            return self.http.get("/ready").text
        except httpx.TransportError:
            return ""

    def is_ready(self) -> bool:
        """Whether `/ready` says so."""
        return '"ready":true' in self.ready_text()

    def metric(self, name: str) -> float | None:
        """A sample by its name and labels as `/metrics` writes them, or None."""
        for line in self.http.get("/metrics").text.splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        return None


def command(*arguments: str) -> list[str]:
    """The argument vector of a server for churn."""
    return [sys.executable, "-m", "espalier.serving.main", "--project", "churn", *arguments]


def environment(dsn: str, registry_uri: str, packages: Path | None = None) -> dict[str, str]:
    """The variables of a server over that database and registry, which finds `packages` too."""
    path = python_environment()["PYTHONPATH"]
    return {
        **os.environ,
        "PYTHONPATH": path if packages is None else f"{packages}{os.pathsep}{path}",
        **variables(dsn),
        "MLFLOW_TRACKING_URI": registry_uri,
        "ESPALIER_MODEL_POLL_SECONDS": "0.1",
    }


@contextmanager
def serving(
    dsn: str, registry_uri: str, folder: Path, *arguments: str, packages: Path | None = None
) -> Iterator[Running]:
    """Run a server on free ports with its log in `folder`; it may not be ready yet.

    It serves churn, and what `--project` among the arguments adds, out of the folder `packages`.
    """
    server = started(dsn, registry_uri, folder, *arguments, packages=packages)
    with (
        server as (process, grpc_address, http, log),
        grpc.insecure_channel(grpc_address) as channel,
        httpx.Client(base_url=f"http://{http}", timeout=10) as client,
    ):
        yield Running(process, channel, client, grpc_address, log)


@contextmanager
def started(
    dsn: str, registry_uri: str, folder: Path, *arguments: str, packages: Path | None = None
) -> Iterator[tuple[subprocess.Popen[str], str, str, Path]]:
    """Run a server as `serving` does; give the process, both addresses and the log's path."""
    log = folder / "server.log"
    with ExitStack() as exits:
        grpc_address, http_address = (
            f"127.0.0.1:{exits.enter_context(reserved_port())}" for _ in range(2)
        )
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(
                    *("--grpc-address", grpc_address, "--http-address", http_address),
                    *("--as-of", "1998-07-14", *arguments),
                ),
                env=environment(dsn, registry_uri, packages),
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        try:
            yield process, grpc_address, http_address, log
        finally:
            process.terminate()
            try:
                process.wait(15)
            finally:
                process.kill()
                assert process.stdout is not None
                process.stdout.close()


def error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
    """The ErrorInfo of a failed call."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "espalier.dev"
    return info
