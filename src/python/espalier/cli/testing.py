"""A host where a Prefect worker runs deployed PEXes, without our sources: for tests and benchmarks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from espalier.orchestration.prefect_server import prefect_environment
from espalier.orchestration.testing import SEEDS, Api, interruptible_children, running_prefect
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import migrate
from espalier.processes import Process, python_environment
from espalier.registry import mlflow_server


@dataclass(frozen=True)
class Host:
    """Where `espalier deploy` is called and a worker runs.

    `environment` is all that its programs are given, `espalier` how the command is called, and
    `worker_log` what the worker said.
    """

    folder: Path
    prefect: Api
    environment: dict[str, str]
    dsn: str
    espalier: tuple[str, ...]

    @property
    def pexes(self) -> Path:
        """The folder of the programs that are deployed."""
        return self.folder / "dist"

    @property
    def worker_log(self) -> Path:
        """What the worker said."""
        return self.folder / "worker.log"

    def deploy(self, declared: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Call `espalier deploy` with a declaration."""
        file = self.folder / "deployments.toml"
        file.write_text(declared)
        argv = [*self.espalier, "deploy", str(file), *options, "--pexes", str(self.pexes)]
        return self._run(argv)

    def deploy_recorded(self, declared: str) -> None:
        """Deploy, and record the PEXes as those that were tested.

        Raises:
            RuntimeError: the command refuses.
        """
        done = self.deploy(declared, "--record")
        if done.returncode != 0:
            raise RuntimeError(done.stderr)

    def start(self, deployment: str, *parameters: str) -> str:
        """Have a run of the deployment, as a person does; its id."""
        given = [part for one in parameters for part in ("-p", one)]
        argv = [sys.executable, "-m", "prefect", "deployment", "run", deployment, *given]
        done = self._run(argv)
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.search(r"UUID: ([0-9a-f-]{36})", done.stdout)
        assert found is not None, done.stdout
        return found[1]

    def _run(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            cwd=self.folder,
            env={**self.environment, **python_environment()},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @contextmanager
    def working(self, pool: str) -> Iterator[None]:
        """Have a worker of the pool, started in an empty folder."""
        empty = self.folder / "empty"
        empty.mkdir(exist_ok=True)
        ours = {} if self.espalier[-1].endswith(".pex") else python_environment()
        known = [f"{name}={value}" for name, value in {**self.environment, **ours}.items()]
        worker = Process(
            "worker",
            # Not what our own process knows by its environment, but the host's.
            ["env", "-i", *known, *self.espalier, "worker", "--pool", pool],
            log=self.worker_log,
            cwd=empty,
        )
        with interruptible_children(), worker:
            workers = f"/work_pools/{pool}/workers/filter"
            worker.wait_until(lambda: bool(self.prefect.ask(workers)), seconds=180)
            yield

    def processes(self, run: str) -> list[int]:
        """The processes that a flow run has, and theirs."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"PREFECT__FLOW_RUN_ID={run}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def until_it_waits(self, run: str) -> None:
        """Wait until the run's step is at work."""
        running = {"state": {"type": {"any_": ["RUNNING"]}}}
        asked = {"flow_runs": {"id": {"any_": [run]}}, "task_runs": running}
        self.until(lambda: self.prefect.ask("/task_runs/filter", **asked))

    def until(self, met: Callable[[], object], *, seconds: float = 240) -> None:
        """Wait for a condition; the worker's log tells why it is not met."""
        deadline = time.monotonic() + seconds
        while not met():
            assert time.monotonic() < deadline, self._worker_said()
            time.sleep(0.1)

    def _worker_said(self) -> str:
        return self.worker_log.read_text() if self.worker_log.exists() else "there is no worker yet"


@contextmanager
def host(
    folder: Path, pexes: Iterable[Path], *, espalier: Path | None = None, mlflow: bool = False
) -> Iterator[Host]:
    """A host with its PostgreSQL and Prefect server, and with copies of the PEXes.

    Args:
        folder: Of the host, all of it.
        pexes: What will be deployed.
        espalier: The PEX of our command; default: our sources.
        mlflow: Whether there is an MLflow server too.
    """
    (folder / "dist").mkdir(parents=True)
    for pex in pexes:
        shutil.copy(pex, folder / "dist" / pex.name)
    home = folder / "prefect"
    command = [str(espalier.absolute())] if espalier else ["-m", "espalier.cli.main"]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "PYTHON"))}
    with ExitStack() as exits:
        server = exits.enter_context(embedded.temporary())
        prefect = exits.enter_context(running_prefect(home))
        with connect(server.dsn()) as connection:
            migrate(connection)
        environment = {
            **inherited,
            **prefect_environment(home),
            "PATH": "/usr/bin:/bin",
            "PREFECT_API_URL": prefect.url,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PEX_ROOT": str(folder / "pex_root"),
            "POSTGRES_HOST": server.host,
            "POSTGRES_PORT": str(server.port),
            "POSTGRES_USER": server.user,
            "POSTGRES_PASSWORD": server.password,
            "POSTGRES_DB": embedded.USER,
            "ESPALIER_DATA_DIR": str(SEEDS),
            "ESPALIER_REPORTS_DIR": str(folder / "reports"),
            "ESPALIER_PEX_STORE": str(folder / "store"),
            "ESPALIER_PEX_CACHE": str(folder / "cache"),
        }
        if mlflow:
            embedded.create_database(server, "mlflow")
            log, kept = folder / "mlflow.log", folder / "artifacts"
            serving = mlflow_server.serve(server.dsn("mlflow"), kept, log=log)
            environment["MLFLOW_TRACKING_URI"] = exits.enter_context(serving)
        yield Host(folder, prefect, environment, server.dsn(), (sys.executable, *command))
