"""One PostgreSQL and one real MLflow server for all tests of the registry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from espalier.postgres import embedded, migrate
from espalier.postgres.connect import Connection, connect
from espalier.registry import mlflow_server
from espalier.registry.manifest import GATE, ONNX, PROVENANCE, SKOPS, ModelManifest
from espalier.registry.mlflow_registry import (
    Candidate,
    Registered,
    TrainingData,
    log_and_register,
)


@dataclass(frozen=True)
class Registry:
    """A running MLflow: its address and where it keeps artifacts."""

    uri: str
    artifacts: Path

    def stored(self, name: str) -> list[Path]:
        """The stored artifacts of that file name."""
        return sorted(self.artifacts.rglob(name))


@pytest.fixture(scope="session")
def postgres() -> Iterator[embedded.Server]:
    with embedded.temporary() as server:
        with connect(server.dsn()) as connection:
            migrate.migrate(connection)
        embedded.create_database(server, "mlflow")
        yield server


@pytest.fixture(scope="session")
def registry(
    postgres: embedded.Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("mlflow")
    artifacts = folder / "artifacts"
    log = folder / "mlflow.log"
    with mlflow_server.serve(postgres.dsn("mlflow"), artifacts, log=log) as uri:
        yield Registry(uri, artifacts)


@pytest.fixture
def database(postgres: embedded.Server) -> Iterator[Connection]:
    with connect(postgres.dsn()) as connection:
        yield connection


_numbers = count()


@pytest.fixture
def project() -> str:
    """The name of a project that no other test uses."""
    return f"project_{next(_numbers)}"


def write_onnx(path: Path, weight: float) -> bytes:
    """A model of two features: the sigmoid of `weight` times their sum, a missing one being 0."""
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "features"], ["known"]),
        helper.make_node("MatMul", ["known", "weights"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["positive"]),
        helper.make_node("Sub", ["one", "positive"], ["negative"]),
        helper.make_node("Concat", ["negative", "positive"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 2])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
        [
            helper.make_tensor("weights", TensorProto.FLOAT, [2, 1], [weight, weight]),
            helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
            helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    path.write_bytes(content)
    return content


@pytest.fixture
def candidate(tmp_path: Path, project: str) -> Callable[..., Candidate]:
    """Makes small candidates of the test's project."""

    def make(weight: float = 1.0, **tags: str) -> Candidate:
        from sklearn.linear_model import LogisticRegression
        from skops import io  # seconds, for the tests that need it

        folder = tmp_path / f"candidate_{weight}"
        folder.mkdir()
        content = write_onnx(folder / ONNX, weight)
        io.dump(LogisticRegression().fit([[0, 0], [1, 1]], [0, 1]), folder / SKOPS)
        rows = ((0.0, 1.0), (2.0, None))
        (folder / "roc.png").write_bytes(b"\x89PNG picture")
        return Candidate(
            manifest=ModelManifest(
                project=project,
                join_key="shop_id",
                view="facts",
                features=("orders", "spend"),
                feature_types=("bigint", "double precision"),
                ttl_seconds=3600.0,
                threshold=0.5,
                file=ONNX,
                digest=hashlib.sha256(content).hexdigest(),
                metrics={"roc_auc": 0.9},
                provenance={"seed": "7"},
                golden_rows=rows,
                golden_scores=tuple(1 / (1 + float(np.exp(-weight * s))) for s in (1.0, 2.0)),
            ),
            onnx=folder / ONNX,
            skops=folder / SKOPS,
            data=TrainingData(
                name="labels",
                digest="d" * 64,
                source={"snapshots": [1, 2]},
                columns={"orders": "float64", "label": "bool"},
                rows=10,
            ),
            params={"estimator": "LogisticRegression", "C": 1.0},
            metrics={"roc_auc": 0.9, "baseline_roc_auc": 0.8},
            tags={"snapshot_id": "2", "git_commit": "abc", **tags},
            requirements=["numpy"],
            figures=[folder / "roc.png"],
            documents={PROVENANCE: '{"seed": 7}\n', GATE: '{"metric": "roc_auc"}\n'},
        )

    return make


@pytest.fixture
def register(registry: Registry, candidate: Callable[..., Candidate]) -> Callable[..., Registered]:
    """Registers small models of the test's project."""
    return lambda weight=1.0, **tags: log_and_register(registry.uri, candidate(weight, **tags))
