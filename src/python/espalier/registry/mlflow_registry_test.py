from __future__ import annotations

import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from espalier.errors import DependencyUnreachable
from espalier.processes import python_environment
from espalier.registry.manifest import MANIFEST, ModelManifest
from espalier.registry.mlflow_registry import log_and_register
from espalier.testing_web import NOBODY


@pytest.fixture
def client(registry) -> MlflowClient:
    return MlflowClient(registry.uri, registry.uri)


def test_a_run_shows_what_the_model_was_made_of(registry, client, candidate, project) -> None:
    registered = log_and_register(registry.uri, candidate())
    run = client.get_run(registered.run_id)
    assert client.get_experiment(run.info.experiment_id).name == project
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"roc_auc": 0.9, "baseline_roc_auc": 0.8}
    assert run.data.params == {"estimator": "LogisticRegression", "C": "1.0"}
    assert run.data.tags["snapshot_id"] == "2"
    (given,) = run.inputs.dataset_inputs
    assert given.dataset.name == "labels"
    assert given.dataset.digest.ljust(64, "d") == "d" * 64
    assert [item.path for item in client.list_artifacts(registered.run_id, "plots")] == [
        "plots/roc.png"
    ]


def test_versions_count_up_and_carry_their_origin(register, client, project) -> None:
    first, second = register(1.0), register(2.0)
    assert (first.version, second.version) == ("1", "2")
    version = client.get_model_version(project, "2")
    assert {k: v for k, v in version.tags.items() if k != "files"} == {
        "snapshot_id": "2",
        "git_commit": "abc",
    }
    assert version.run_id == second.run_id
    assert version.status == "READY"
    assert client.get_registered_model(project).aliases == {}


def test_the_stored_folder_is_a_model_that_mlflow_itself_can_run(
    registry, client, candidate, project, tmp_path
) -> None:
    made = candidate(0.7)
    version = log_and_register(registry.uri, made).version
    uri = client.get_model_version_download_uri(project, version)
    folder = registry.artifacts / uri.removeprefix("mlflow-artifacts:/")
    assert ModelManifest.from_json((folder / MANIFEST).read_text()) == made.manifest
    assert (folder / "model.onnx").read_bytes() == made.onnx.read_bytes()
    assert (folder / "model.skops").read_bytes() == made.skops.read_bytes()

    model = mlflow.pyfunc.load_model(str(folder))
    assert model.metadata.get_input_schema().input_names() == ["features"]
    assert model.metadata.metadata["features"] == ["orders", "spend"]
    rows = np.array([[0.5, 1.5], [-2.0, 0.0]], dtype=np.float32)
    scores = model.predict({"features": rows})["probabilities"][:, 1]
    assert scores == pytest.approx(1 / (1 + np.exp(-0.7 * rows.sum(axis=1))), abs=1e-6)
    example = model.input_example["features"]
    assert example[0].tolist() == [0.0, 1.0]
    assert np.isnan(example[1][1])


def test_nothing_stored_is_a_pickle(registry, register) -> None:
    register()
    files = [path for path in registry.artifacts.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"MLmodel", "model.onnx", "model.skops", MANIFEST}
    for path in files:
        assert not looks_like_pickle(path.name, path.read_bytes()), path
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    assert not looks_like_pickle(name, archive.read(name)), (path, name)


def looks_like_pickle(name: str, content: bytes) -> bool:
    # Protocols 2 to 5 begin with PROTO and the number; `pickletools` would call any text one.
    known = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill")
    return name.endswith(known) or (content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05")


def test_a_pickle_would_have_been_noticed() -> None:
    assert looks_like_pickle("model", pickle.dumps([1]))
    assert looks_like_pickle("model.pkl", b"")
    assert not looks_like_pickle("model.onnx", b"\x08\x08")


def test_registering_prints_nothing(register, capfd) -> None:
    register()
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_what_cannot_be_logged_leaves_a_failed_run_and_no_version(
    registry, client, candidate, project
) -> None:
    broken = replace(candidate(), skops=Path("/nonexistent/model.skops"))
    with pytest.raises(FileNotFoundError):
        log_and_register(registry.uri, broken)
    experiment = client.get_experiment_by_name(project)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
    assert client.search_registered_models(f"name = '{project}'") == []


def test_a_server_that_is_down_is_one_line(candidate) -> None:
    with pytest.raises(DependencyUnreachable) as refused:
        log_and_register(f"http://{NOBODY}", candidate())
    assert f"MLflow at http://{NOBODY}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_mlflow_does_not_import_feast(registry) -> None:
    code = """
import sys
from espalier.registry import mlflow_registry
with mlflow_registry._mlflow(sys.argv[1]) as client:
    client.get_experiment_by_name("any")
print("feast" in sys.modules, "mlflow" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, registry.uri],
        env=python_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "True"]
