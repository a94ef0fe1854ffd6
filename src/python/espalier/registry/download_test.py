from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from espalier.errors import BadData, ConfigurationError, DependencyUnreachable, ModelNotReady
from espalier.processes import python_environment
from espalier.registry.download import (
    current_version,
    fetch_document,
    fetch_version,
    stored_files,
)
from espalier.registry.manifest import GATE, MANIFEST, ONNX, PROVENANCE, SKOPS
from espalier.registry.mlflow_registry import log_and_register
from espalier.registry.rest import MlflowRest
from espalier.testing_web import NOBODY, Handler, web_server


def newest(registry, name: str) -> Path:
    """The stored file of that name that was written last."""
    stored: list[Path] = registry.stored(name)
    return max(stored, key=lambda path: path.stat().st_mtime_ns)


def test_a_version_is_fetched_by_number_and_by_alias(
    registry, candidate, project, tmp_path
) -> None:
    made = candidate()
    version = log_and_register(registry.uri, made).version
    assert current_version(registry.uri, project) is None
    with MlflowRest(registry.uri) as mlflow:
        assert mlflow.set_alias(project, version)
    assert current_version(registry.uri, project) == version

    fetched = fetch_version(registry.uri, project, "champion", tmp_path / "models")
    assert (fetched.name, fetched.version) == (project, version)
    assert fetched.manifest == made.manifest
    assert fetched.path.read_bytes() == made.onnx.read_bytes()
    assert fetched == fetch_version(registry.uri, project, version, tmp_path / "models")
    # No unfinished download is left, and no file that serving does not need.
    assert [path.name for path in (tmp_path / "models").iterdir()] == [f"{project}-{version}"]
    assert sorted(path.name for path in fetched.folder.iterdir()) == [MANIFEST, ONNX]


def test_a_model_that_is_here_is_not_downloaded_again_unless_damaged(
    registry, register, project, tmp_path
) -> None:
    version = register().version
    fetched = fetch_version(registry.uri, project, version, tmp_path)
    stored = newest(registry, ONNX)
    content = stored.read_bytes()
    stored.unlink()
    assert fetch_version(registry.uri, project, version, tmp_path) == fetched

    fetched.path.write_bytes(b"damaged")
    with pytest.raises(ModelNotReady, match=r"model\.onnx"):
        fetch_version(registry.uri, project, version, tmp_path)
    stored.write_bytes(content)
    assert fetch_version(registry.uri, project, version, tmp_path).path.read_bytes() == content


def test_a_file_changed_after_registration_is_refused(
    registry, register, project, tmp_path
) -> None:
    version = register().version
    stored = newest(registry, ONNX)
    stored.write_bytes(stored.read_bytes()[:-1] + b"\x00")
    with pytest.raises(BadData, match="sha256") as refused:
        fetch_version(registry.uri, project, version, tmp_path)
    assert refused.value.exit_code == 4
    assert list(tmp_path.glob("*-*")) == []


def test_a_manifest_changed_after_registration_is_refused(
    registry, register, project, tmp_path
) -> None:
    version = register().version
    stored = newest(registry, MANIFEST)
    stored.write_text(stored.read_text().replace('"threshold": 0.5', '"threshold": 0.4'))
    with pytest.raises(BadData, match=r"manifest\.json.*was registered with"):
        fetch_version(registry.uri, project, version, tmp_path)


def test_a_model_and_manifest_changed_together_are_refused(
    registry, register, project, tmp_path
) -> None:
    version = register().version
    model, manifest = newest(registry, ONNX), newest(registry, MANIFEST)
    before, after = model.read_bytes(), b"another model"
    model.write_bytes(after)
    manifest.write_text(manifest.read_text().replace(sha256(before), sha256(after)))
    with pytest.raises(BadData, match="was registered with"):
        fetch_version(registry.uri, project, version, tmp_path)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def register_untagged(registry, register, project):
    """Registers as a release did that kept no digests in MLflow's database."""

    def make() -> str:
        version: str = register().version
        MlflowClient(registry.uri, registry.uri).delete_model_version_tag(project, version, "files")
        return version

    return make


@pytest.mark.parametrize("content", ["{}", "not json", '{"file": "../../etc/passwd"}'])
def test_a_manifest_that_is_none_is_refused(
    registry, register_untagged, project, tmp_path, content
) -> None:
    version = register_untagged()
    newest(registry, MANIFEST).write_text(content)
    with pytest.raises(BadData, match=MANIFEST):
        fetch_version(registry.uri, project, version, tmp_path)


def test_a_manifest_cannot_name_a_file_elsewhere(
    registry, register_untagged, project, tmp_path
) -> None:
    version = register_untagged()
    stored = newest(registry, MANIFEST)
    stored.write_text(stored.read_text().replace('"model.onnx"', '"../model.onnx"'))
    with pytest.raises(BadData, match="names the model file"):
        fetch_version(registry.uri, project, version, tmp_path)


def test_a_file_that_is_gone_is_not_ready(registry, register, project, tmp_path) -> None:
    version = register().version
    shutil.rmtree(newest(registry, ONNX).parent)
    with pytest.raises(ModelNotReady, match=MANIFEST):
        fetch_version(registry.uri, project, version, tmp_path)


def test_a_document_is_read_by_name_and_compared_with_its_digest(
    registry, register, project
) -> None:
    version = register().version
    assert fetch_document(registry.uri, project, version, PROVENANCE) == '{"seed": 7}\n'
    with pytest.raises(ModelNotReady, match=r"no_such\.json"):
        fetch_document(registry.uri, project, version, "no_such.json")
    newest(registry, PROVENANCE).write_text('{"seed": 8}\n')
    with pytest.raises(BadData, match=r"provenance\.json.*was registered with"):
        fetch_document(registry.uri, project, version, PROVENANCE)


def test_files_are_listed_with_the_digests_they_were_registered_with(
    registry, register, project
) -> None:
    version = register().version
    files = {file.name: file for file in stored_files(registry.uri, project, version)}
    model = newest(registry, ONNX).read_bytes()
    assert (files[ONNX].size, files[ONNX].digest) == (len(model), sha256(model))
    assert {name for name, file in files.items() if file.digest} == {
        *(MANIFEST, ONNX, SKOPS, PROVENANCE, GATE)
    }
    assert files["MLmodel"].digest is None


def test_what_was_never_registered_is_not_ready(registry, register, project, tmp_path) -> None:
    for asked in ("champion", "1"):
        with pytest.raises(ModelNotReady, match=project):
            fetch_version(registry.uri, project, asked, tmp_path)
    register()
    for asked in ("champion", "2"):
        with pytest.raises(ModelNotReady, match=project):
            fetch_version(registry.uri, project, asked, tmp_path)


def test_a_server_that_is_down_is_one_line_without_the_password(tmp_path) -> None:
    for call in (
        lambda uri: current_version(uri, "churn"),
        lambda uri: fetch_version(uri, "churn", "champion", tmp_path),
    ):
        with pytest.raises(DependencyUnreachable) as refused:
            call(f"http://user:secret@{NOBODY}")
        assert NOBODY in str(refused.value)
        assert "secret" not in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.fixture(params=[200, 404, 502])
def other_server(request) -> Iterator[str]:
    """A web server that is not MLflow."""

    class Alike(Handler):
        def answer(self) -> tuple[int, bytes]:
            return request.param, b"<html>hello</html>"

    with web_server(Alike) as address:
        yield f"http://{address}"


def test_a_server_that_is_not_mlflow_is_said_to_be_unreachable(other_server) -> None:
    with pytest.raises(DependencyUnreachable, match="no JSON"):
        current_version(other_server, "churn")


def test_an_address_that_is_no_server_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigurationError, match="MLFLOW_TRACKING_URI"):
        current_version("sqlite:///mlflow.db", "churn")


def test_the_module_is_light() -> None:
    heavy = ("mlflow", "onnx", "onnxruntime", "pandas", "numpy", "sklearn", "psycopg", "requests")
    code = (
        "import sys, espalier.registry.download;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=python_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
