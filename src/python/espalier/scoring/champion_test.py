"""Batch scoring with what a real MLflow server hands out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from espalier.errors import DependencyUnreachable, ModelNotReady
from espalier.postgres import embedded
from espalier.registry.download import FetchedModel
from espalier.registry.manifest import SKOPS
from espalier.registry.mlflow_registry import Candidate, TrainingData, log_and_register
from espalier.registry.mlflow_server import serve
from espalier.registry.rest import MlflowRest
from espalier.scoring.score import score
from espalier.scoring.testing import FEATURES, JUNE, MAY, SHOP, SHOPS, facts
from espalier.testing_web import NOBODY
from espalier.training import skops_file


@pytest.fixture(scope="module")
def mlflow_uri(server: embedded.Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    embedded.create_database(server, "mlflow")
    with serve(server.dsn("mlflow"), folder / "artifacts", log=folder / "mlflow.log") as address:
        yield address


def test_the_champion_of_a_registry(
    dsn: str, model: FetchedModel, pipeline: Any, mlflow_uri: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with pytest.raises(ModelNotReady, match="no champion of model shop"):
        score(SHOP, as_of=JUNE, dsn=dsn, tracking_uri=mlflow_uri, output=output, partitions=2)
    skops_file.save(pipeline, tmp_path / SKOPS)
    rows = facts(MAY)[list(FEATURES)].head(3).to_numpy()
    manifest = replace(
        model.manifest,
        golden_rows=tuple(tuple(None if np.isnan(v) else v for v in row) for row in rows.tolist()),
        golden_scores=tuple(pipeline.predict_proba(rows)[:, 1].tolist()),
    )
    candidate = Candidate(
        manifest=manifest,
        onnx=model.path,
        skops=tmp_path / SKOPS,
        data=TrainingData(name="shop", digest="0" * 64, source={}, columns={}, rows=SHOPS),
        params={},
        metrics={},
        tags={},
        requirements=["onnxruntime"],
    )
    version = log_and_register(mlflow_uri, candidate).version
    with MlflowRest(mlflow_uri) as rest:
        rest.set_alias("shop", version)
    done = score(SHOP, as_of=JUNE, dsn=dsn, tracking_uri=mlflow_uri, output=output, partitions=2)
    assert (done.version, done.rows, done.written) == (version, SHOPS, 2)
    direct = pipeline.predict_proba(facts(JUNE)[list(FEATURES)].to_numpy())[:, 1]
    np.testing.assert_allclose(pq.read_table(output)["score"].to_numpy(), direct, atol=1e-6)


def test_no_registry(dsn: str, tmp_path: Path) -> None:
    uri = f"http://{NOBODY}"
    with pytest.raises(DependencyUnreachable, match="MLflow"):
        score(SHOP, as_of=JUNE, dsn=dsn, tracking_uri=uri, output=tmp_path / "out", partitions=2)
    assert not (tmp_path / "out").exists()
