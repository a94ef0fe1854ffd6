"""Where a replay's loops run: in this process, or as deployed PEXes by a worker.

In both, a month's predictions are given by a running prediction server and logged by it.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import grpc

from churn.project import PROJECT
from espalier import settings
from espalier.cli import testing
from espalier.cli.testing import Host
from espalier.orchestration.flows.loop import loop
from espalier.orchestration.testing import EVERY_FLOW
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import migrate
from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc
from espalier.probe import answers
from espalier.processes import Process, python_environment, reserved_port
from espalier.registry import mlflow_server

_DECLARED = Path("deploy/prefect/deployments.toml")
_AT_A_TIME = 250
_READY_SECONDS = 300


@dataclass(frozen=True)
class Place:
    """A database, and how a month's loop and the prediction server are run over it.

    `run` gives what the loop told, by day and folder of the batch; `server` is the server's
    command without its addresses, and `environment` all that it is given.
    """

    folder: Path
    dsn: str
    run: Callable[[date, Path], Mapping[str, Any]]
    server: Sequence[str]
    environment: Mapping[str, str]

    def serve(self, day: date, users: Path) -> None:
        """Have a server predict for all users of a file as of that day, and log it so."""
        with users.open(newline="") as file:
            entities = [row[PROJECT.entity.join_key] for row in csv.DictReader(file)]
        with self._serving(day) as address, grpc.insecure_channel(address) as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            for first in range(0, len(entities), _AT_A_TIME):
                asked = pb.BatchPredictRequest(entity_ids=entities[first : first + _AT_A_TIME])
                stub.BatchPredict(asked, timeout=60)
        with connect(self.dsn) as connection:
            row = connection.execute(
                "SELECT count(DISTINCT entity_id) FROM espalier.predictions WHERE served_at = %s",
                [datetime.combine(day, time(), tzinfo=UTC)],
            ).fetchone()
        assert row is not None, "an aggregate gives a row"
        if row[0] != len(entities):
            raise RuntimeError(f"{row[0]} predictions of {len(entities)} were logged on {day}")

    @contextmanager
    def _serving(self, day: date) -> Iterator[str]:
        with ExitStack() as exits:
            addresses = [f"127.0.0.1:{exits.enter_context(reserved_port())}" for _ in range(2)]
            options = ["--grpc-address", addresses[0], "--http-address", addresses[1]]
            known = [f"{name}={value}" for name, value in self.environment.items()]
            process = Process(
                "the prediction server",
                ["env", "-i", *known, *self.server, *options, "--as-of", day.isoformat()],
                log=self.folder / "server.log",
                # What it has to log it writes when it ends.
                grace_seconds=60,
            )
            exits.enter_context(process)
            ready = f"http://{addresses[1]}/ready"
            process.wait_until(lambda: answers(ready), seconds=_READY_SECONDS)
            yield addresses[0]


@contextmanager
def in_this_process(folder: Path) -> Iterator[Place]:
    """The loop is called here, without Prefect."""
    with embedded.temporary() as server:
        with connect(server.dsn()) as connection:
            migrate(connection)
        embedded.create_database(server, "mlflow")
        log = folder / "mlflow.log"
        with mlflow_server.serve(server.dsn("mlflow"), folder / "artifacts", log=log) as uri:
            here = replace(
                settings.Settings(),
                postgres_host=server.host,
                postgres_port=server.port,
                postgres_user=server.user,
                postgres_password=server.password,
                mlflow_tracking_uri=uri,
                reports_dir=folder / "reports",
                actor="replay",
            )
            # Flows read their settings from the environment.
            os.environ.update(here.environment())
            serving = [sys.executable, "-m", "espalier.serving.main", "--project", PROJECT.name]
            yield Place(
                folder,
                server.dsn(),
                lambda day, source: loop.fn(PROJECT.name, day, source),
                serving,
                {**os.environ, **here.environment(), **python_environment()},
            )


@contextmanager
def by_worker(folder: Path, dist: Path) -> Iterator[Place]:
    """The loop's PEX is deployed and run by a worker, and so is the training that it asks for.

    Args:
        folder: For everything that is written.
        dist: The PEXes, as `./pants package ::` leaves them.
    """
    pexes = [dist / f"{PROJECT.name}-{flow}.pex" for flow in EVERY_FLOW]
    espalier = dist / "espalier.pex"
    with testing.host(folder / "host", pexes, espalier=espalier, mlflow=True) as host:
        host.deploy_recorded(_DECLARED.read_text())
        with host.working("espalier"):
            yield Place(
                folder,
                host.dsn,
                lambda day, source: _looped(host, day, source),
                [sys.executable, str((dist / f"{PROJECT.name}-server.pex").absolute())],
                host.environment,
            )


def _looped(host: Host, day: date, source: Path) -> Mapping[str, Any]:
    run = host.start(
        f"loop/{PROJECT.name}-loop", f"as_of={day}", f"source={source}", "wait_seconds=0"
    )
    if (state := host.prefect.ended(run, seconds=1800)) != "Completed":
        raise RuntimeError(f"the loop of {day} is {state}: {host.prefect.state(run)[1]}")
    words = {"None": None, "True": True, "False": False}
    told = host.prefect.artifacts(run)["loop"]
    return {name: words.get(value, value) for name, value in told.items()}
