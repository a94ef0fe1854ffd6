"""Files that would run code when they are loaded stand in a version's folder, and never run.

Whoever can write to the artifact store puts a pickle where MLflow, scikit-learn or a careless
program would look for one. Each path that fetches or loads a model is taken; the marker that the
code would leave is never there.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
from skops import io as skops_io

from espalier.errors import BadData
from espalier.postgres.connect import connect
from espalier.registry import download, promotion
from espalier.registry.rest import MlflowRest
from espalier.serving import loading
from espalier.serving.testing_server import serving
from espalier.training import skops_file

MANIFEST, ONNX, SKOPS = "manifest.json", "model.onnx", "model.skops"
PLACES = ("model.pkl", "python_model.pkl", "model.joblib", "model.cloudpickle")


class Runs:
    """Leaves a marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "the-code-ran"


def test_the_pickle_would_run_where_it_is_loaded(marker) -> None:
    pickle.loads(pickle.dumps(Runs(marker)))
    assert marker.exists()


class Sneaks:
    """Leaves a marker when skops builds it, which it does for a type that it was told to trust."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["marker"]).mkdir()


# Where each program finds it, however the tests were started.
Sneaks.__module__ = "espalier.cli.malicious_artifact_test"


def malicious_skops(marker: Path) -> bytes:
    content: bytes = skops_io.dumps(Sneaks(marker))
    return content


def test_the_skops_file_would_run_where_its_type_is_trusted(marker, tmp_path) -> None:
    path = tmp_path / SKOPS
    path.write_bytes(malicious_skops(marker))
    skops_io.load(path, trusted=skops_io.get_untrusted_types(file=path))
    assert marker.exists()


def plant(folder: Path, marker: Path) -> None:
    """Put pickles where they are looked for, and name them in MLflow's own description."""
    pickled = pickle.dumps(Runs(marker))
    for name in PLACES:
        (folder / name).write_bytes(pickled)
    described = folder / "MLmodel"
    described.write_text(
        described.read_text()
        .replace(
            "flavors:\n",
            "flavors:\n"
            "  sklearn:\n    pickled_model: model.pkl\n    serialization_format: cloudpickle\n"
            "    sklearn_version: 1.9.1\n    code: null\n",
        )
        # The generic flavor too would unpickle it.
        .replace("loader_module: mlflow.onnx", "loader_module: mlflow.sklearn")
        .replace("data: model.onnx", "data: model.pkl")
    )
    assert "pickled_model: model.pkl" in described.read_text()


def every_path(registered, version: str, tmp_path: Path) -> list[int]:
    """Take each way by which a version is fetched or loaded; give the commands' exit codes."""
    ended = [
        registered.espalier(*command)
        for command in (
            ["models", "show", version],
            ["models", "promote", version, "--why", "x", "--force"],
            ["models", "rollback", "--to", version],
            ["reproduce", version],
        )
    ]
    print(*(f"{done.args[3:]}: {done.returncode} {done.stderr}" for done in ended), sep="\n")
    try:
        fetched = download.fetch_version(registered.uri, "churn", version, tmp_path / "fetched")
        loading.load("churn", version, folder=fetched.folder, manifest=fetched.manifest)
    except BadData:
        pass
    with MlflowRest(registered.uri) as mlflow:
        assert mlflow.set_alias("churn", version)
    with serving(registered.dsn, registered.uri, tmp_path) as server:
        # scikit-learn, which a skops file asks for, takes a server seconds to import.
        server.until(
            lambda: server.is_ready() or "not in force" in server.log.read_text(), seconds=90
        )
    with connect(registered.dsn) as connection:
        promotion.repair(connection, registered.uri, "churn")
    return [done.returncode for done in ended]


def test_pickles_beside_a_good_model_are_left_where_they_are(registered, marker, tmp_path) -> None:
    version, _ = registered.promoted(0.01, 0.02)
    plant(registered.stored(version), marker)
    codes = every_path(registered, version, tmp_path)
    assert not marker.exists()
    # The model itself is whole: it is shown and promoted. Its provenance is a test's, "{}".
    assert codes[:2] == [0, 0]
    assert codes[3] == 4
    fetched = tmp_path / "fetched" / f"churn-{version}"
    assert sorted(path.name for path in fetched.iterdir()) == [MANIFEST, ONNX]


@pytest.mark.parametrize("name", [ONNX, MANIFEST])
def test_a_file_replaced_by_a_pickle_is_refused_by_its_digest(
    registered, marker, tmp_path, name
) -> None:
    version, now = registered.promoted(0.01, 0.02)
    (registered.stored(version) / name).write_bytes(pickle.dumps(Runs(marker)))
    codes = every_path(registered, version, tmp_path)
    assert not marker.exists()
    assert codes[1:] == [4, 4, 4]
    assert registered.champion() == now


@pytest.mark.parametrize("file", [ONNX, SKOPS])
@pytest.mark.parametrize("kind", ["pickle", "skops"])
def test_a_version_made_up_in_full_is_refused_when_it_is_loaded(
    registered, marker, tmp_path, file, kind
) -> None:
    """By who can write to MLflow's database too, so that all digests are right."""
    version, now = registered.promoted(0.01, 0.02)
    folder = registered.stored(version)
    content = pickle.dumps(Runs(marker)) if kind == "pickle" else malicious_skops(marker)
    (folder / file).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest |= {"file": file, "digest": hashlib.sha256(content).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with MlflowRest(registered.uri) as mlflow:
        tag = {"name": "churn", "version": version, "key": "files", "value": "{}"}
        assert mlflow.post("model-versions/set-tag", tag) is not None
    codes = every_path(registered, version, tmp_path)
    assert not marker.exists()
    assert codes[1] == codes[2] == 4
    assert registered.champion() == now
    fetched = download.fetch_version(registered.uri, "churn", version, tmp_path / "again")
    with pytest.raises(BadData):
        loading.load("churn", version, folder=fetched.folder, manifest=fetched.manifest)
    assert not marker.exists()


def test_a_manifest_cannot_name_a_pickle(registered, marker, tmp_path) -> None:
    version, _ = registered.promoted(0.01, 0.02)
    folder = registered.stored(version)
    plant(folder, marker)
    manifest = json.loads((folder / MANIFEST).read_text())
    content = (folder / "model.pkl").read_bytes()
    manifest |= {"file": "model.pkl", "digest": hashlib.sha256(content).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with MlflowRest(registered.uri) as mlflow:
        tag = {"name": "churn", "version": version, "key": "files", "value": "{}"}
        assert mlflow.post("model-versions/set-tag", tag) is not None
    assert every_path(registered, version, tmp_path)[1:] == [4, 4, 4]
    assert not marker.exists()


def test_a_skops_file_of_a_forbidden_type_is_not_built(marker, tmp_path) -> None:
    path = tmp_path / SKOPS
    path.write_bytes(malicious_skops(marker))
    with pytest.raises(BadData):
        skops_file.load(path)
    assert not marker.exists()
