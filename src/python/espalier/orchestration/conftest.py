"""Flows started as their PEX starts them, over a real PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from espalier.orchestration.testing import (
    SEEDS,
    Api,
    interruptible_children,
    running_prefect,
)
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import migrate
from espalier.processes import python_environment

PROGRAM = "churn-ingest.pex"


@dataclass(frozen=True)
class Ended:
    """A program that has ended."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> dict[str, Any]:
        """What the flow did."""
        facts: dict[str, Any] = json.loads(self.out)
        return facts

    @property
    def reason(self) -> str:
        """What went wrong; fails unless that is all that was printed, on one line."""
        start, end = f"{PROGRAM}: ", "\n"
        assert self.err.startswith(start), self.err
        assert self.err.endswith(end), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.out == ""
        return self.err[len(start) : -len(end)]


@dataclass(frozen=True)
class Programs:
    """Runs the program of a flow as `churn-ingest.pex`, in a folder of its own."""

    folder: Path
    environment: dict[str, str]

    def start(self, *arguments: str, flow: str = "ingest", **env: str) -> subprocess.Popen[str]:
        """Start the program of a flow."""
        with interruptible_children():
            return subprocess.Popen(
                self.command(*arguments, flow=flow),
                cwd=self.folder,
                env={**self.environment, **env},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def run(self, *arguments: str, flow: str = "ingest", seconds: float = 100, **env: str) -> Ended:
        """Start it and wait for its end."""
        return ended(self.start(*arguments, flow=flow, **env), seconds=seconds)

    @staticmethod
    def command(*arguments: str, flow: str = "ingest") -> list[str]:
        """The argument vector."""
        return [
            *(sys.executable, "-m", "espalier.orchestration.entry"),
            *(f"espalier.orchestration.flows.{flow}:{flow}", "--project=churn", *arguments),
        ]


def ended(process: subprocess.Popen[str], *, seconds: float = 100) -> Ended:
    """Wait for the end of a program."""
    out, err = process.communicate(timeout=seconds)
    return Ended(process.returncode, out, err)


@pytest.fixture(scope="session")
def server() -> Iterator[embedded.Server]:
    with embedded.temporary() as running:
        yield running


_numbers = count()


@pytest.fixture
def database(server: embedded.Server) -> str:
    """The name of a new database of this release."""
    name = f"test_{next(_numbers)}"
    embedded.create_database(server, name)
    with connect(server.dsn(name)) as connection:
        migrate(connection)
    return name


@pytest.fixture
def programs(server: embedded.Server, database: str, tmp_path: Path) -> Programs:
    """Programs over the test's database."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
    return Programs(
        tmp_path,
        {
            **inherited,
            **python_environment(),
            "PEX": f"/somewhere/{PROGRAM}",
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "POSTGRES_HOST": server.host,
            "POSTGRES_PORT": str(server.port),
            "POSTGRES_USER": server.user,
            "POSTGRES_PASSWORD": server.password,
            "POSTGRES_DB": database,
            "ESPALIER_DATA_DIR": str(SEEDS),
            "ESPALIER_REPORTS_DIR": str(tmp_path / "reports"),
        },
    )


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running_prefect(tmp_path_factory.mktemp("prefect")) as api:
        yield api
