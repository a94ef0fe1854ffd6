"""A real prediction server, a real registry, and quickstart as a program."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression
from skops import io

from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.registry import ledger, mlflow_server, promotion
from espalier.registry.manifest import GATE, ONNX, PROVENANCE, SKOPS
from espalier.registry.mlflow_registry import Candidate, TrainingData, log_and_register
from espalier.registry.rest import MlflowRest
from espalier.serving.testing import create_online_table, running_registry, write_model
from espalier.serving.testing_server import Running, environment, serving


@pytest.fixture(scope="session")
def prediction_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server for churn over a small model and the entities of `espalier.serving.testing`."""
    folder: Path = tmp_path_factory.mktemp("serving")
    write_model(folder / "one")
    with embedded.temporary() as postgres, running_registry() as registry:
        create_online_table(postgres.dsn())
        registry.publish("1", folder / "one")
        with serving(postgres.dsn(), registry.uri, folder) as running:
            running.until(running.is_ready)
            yield running


@dataclass(frozen=True)
class Registered:
    """A database with online features, a real MLflow server, and versions of churn in it.

    All tests share it, so each makes the versions that it speaks of.
    """

    server: embedded.Server
    uri: str
    folder: Path

    @property
    def dsn(self) -> str:
        """The database with the ledger."""
        return self.server.dsn()

    def register(self, slope: float = 0.01, **tags: str) -> str:
        """Register a small model of the server's tests; give its version."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            manifest = write_model(folder, slope=slope)
            io.dump(LogisticRegression().fit([[0], [1]], [0, 1]), folder / SKOPS)
            candidate = Candidate(
                manifest=manifest,
                onnx=folder / ONNX,
                skops=folder / SKOPS,
                data=TrainingData(name="labels", digest="d" * 64, source={}, columns={}, rows=9),
                params={},
                metrics={"roc_auc": 0.75, "roc_auc_low": 0.7, "roc_auc_high": 0.8},
                tags=tags,
                requirements=["numpy"],
                documents={GATE: json.dumps({"checks": [CHECK]}), PROVENANCE: "{}"},
            )
            return log_and_register(self.uri, candidate).version

    def champion(self) -> str | None:
        """The version that the ledger says."""
        with connect(self.dsn) as connection:
            last = ledger.last(connection, "churn")
        return last.to_version if last else None

    def promoted(self, *slopes: float) -> list[str]:
        """Register and promote a version for each slope."""
        versions = [self.register(slope, gate="accepted") for slope in slopes]
        with connect(self.dsn) as connection:
            for version in versions:
                promotion.promote(
                    connection,
                    self.uri,
                    "churn",
                    version,
                    expected=self.champion(),
                    who="tester",
                    why=f"promoted {version}",
                    evidence={},
                )
        return versions

    def stored(self, version: str) -> Path:
        """The folder of a version's files."""
        with MlflowRest(self.uri) as mlflow:
            asked = {"name": "churn", "version": version}
            answer = mlflow.get("model-versions/get-download-uri", asked)
        assert answer is not None
        path: str = answer["artifact_uri"].removeprefix("mlflow-artifacts:/")
        return self.folder / "artifacts" / path

    def espalier(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the command in a folder of its own."""
        return subprocess.run(
            [sys.executable, "-m", "espalier.cli.main", *arguments],
            cwd=self.folder,
            env={**environment(self.dsn, self.uri), "ESPALIER_ACTOR": "somebody", **env},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


CHECK = {"name": "leakage", "verdict": "passed", "reason": "no feature knows the label"}


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registered]:
    folder: Path = tmp_path_factory.mktemp("registered")
    with embedded.temporary() as server:
        create_online_table(server.dsn())
        embedded.create_database(server, "mlflow")
        log = folder / "mlflow.log"
        with mlflow_server.serve(server.dsn("mlflow"), folder / "artifacts", log=log) as uri:
            yield Registered(server, uri, folder)
