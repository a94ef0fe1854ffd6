from __future__ import annotations

from pathlib import Path

import pytest

from espalier.errors import ConfigurationError
from espalier.postgres import embedded
from espalier.registry import mlflow_server
from espalier.registry.download import fetch_version
from espalier.registry.mlflow_registry import log_and_register


def destination(artifacts: Path | str) -> str:
    command = mlflow_server.mlflow_server_command(artifacts, 5000)
    return command[command.index("--artifacts-destination") + 1]


def test_a_folder_is_given_as_a_uri(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "a b", str(tmp_path / "a b"), "a b"):
        assert destination(folder) == f"{tmp_path.as_uri()}/a%20b"


def test_any_store_that_mlflow_knows_is_given_as_it_is() -> None:
    assert destination("file:///somewhere") == "file:///somewhere"
    assert destination("ftp://user@host/path") == "ftp://user@host/path"


@pytest.mark.parametrize(
    ("uri", "package"),
    [
        ("s3://bucket/models", "boto3"),
        ("gs://bucket/models", "google-cloud-storage"),
        ("wasbs://c@a.blob.core.windows.net/m", "azure-storage-blob"),
    ],
)
def test_a_store_whose_library_is_not_here_is_a_wrong_setting(uri, package) -> None:
    with pytest.raises(ConfigurationError, match=f"needs the package {package}") as refused:
        destination(uri)
    assert refused.value.exit_code == 2


def test_models_go_to_the_store_that_a_uri_names(
    postgres: embedded.Server, candidate, project, tmp_path: Path
) -> None:
    store, database = tmp_path / "store", "mlflow_by_uri"
    embedded.create_database(postgres, database)
    with mlflow_server.serve(
        postgres.dsn(database), store.as_uri(), log=tmp_path / "mlflow.log"
    ) as uri:
        made = candidate()
        version = log_and_register(uri, made).version
        fetched = fetch_version(uri, project, version, tmp_path / "models")
    assert fetched.path.read_bytes() == made.onnx.read_bytes()
    assert [path.read_bytes() for path in store.rglob("model.onnx")] == [made.onnx.read_bytes()]
