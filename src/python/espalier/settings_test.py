from __future__ import annotations

from pathlib import Path

import psycopg.conninfo
import pytest

from espalier.errors import ConfigurationError
from espalier.settings import Settings, load, read


def test_defaults_are_the_public_ports():
    settings = read({})
    assert settings.postgres_port == 5432
    assert settings.mlflow_tracking_uri == "http://127.0.0.1:5000"
    assert settings.grpc_address == "127.0.0.1:50051"


def test_values_have_their_types_and_an_empty_one_is_the_default():
    settings = read({"POSTGRES_PORT": "6000", "ESPALIER_DATA_DIR": "d", "POSTGRES_HOST": ""})
    assert settings.postgres_port == 6000
    assert settings.data_dir == Path("d")
    assert settings.postgres_host == "127.0.0.1"


def test_a_wrong_value_names_the_variable_and_its_meaning():
    with pytest.raises(ConfigurationError) as caught:
        read({"POSTGRES_PORT": "many"})
    assert str(caught.value) == (
        "POSTGRES_PORT='many' is not a valid int; it is PostgreSQL's port; default 5432"
    )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("host", ["db.example", "/run/a folder"])
def test_the_dsn_survives_awkward_characters(host):
    settings = Settings(postgres_host=host, postgres_user="a b", postgres_password="p@ss/w:rd")
    parsed = psycopg.conninfo.conninfo_to_dict(settings.dsn)
    assert parsed["host"] == host
    assert parsed["user"] == "a b"
    assert parsed["password"] == "p@ss/w:rd"
    assert parsed["dbname"] == "espalier"


def test_the_environment_wins_over_the_env_file(tmp_path: Path, monkeypatch):
    (tmp_path / ".env").write_text("POSTGRES_USER=file\nPOSTGRES_DB=file\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POSTGRES_USER", "environment")
    monkeypatch.delenv("POSTGRES_DB", raising=False)
    settings = load()
    assert (settings.postgres_user, settings.postgres_db) == ("environment", "file")


def test_a_child_with_the_environment_reads_the_same_settings():
    settings = Settings(postgres_port=6001, postgres_password="x", data_dir=Path("elsewhere"))
    assert read(settings.environment()) == settings


def test_the_example_names_every_variable():
    text = Path(".env.example").read_text()
    names = {line.lstrip("# ").partition("=")[0] for line in text.splitlines() if "=" in line}
    assert names == set(Settings().environment())


def test_the_password_may_be_in_a_file(tmp_path: Path):
    secret = tmp_path / "password"
    secret.write_text("p@ss word\n")
    assert read({"POSTGRES_PASSWORD_FILE": str(secret)}).postgres_password == "p@ss word"
    both = {"POSTGRES_PASSWORD_FILE": str(secret), "POSTGRES_PASSWORD": "given"}
    assert read(both).postgres_password == "given"


def test_a_password_file_that_is_not_there_is_named(tmp_path: Path):
    missing = str(tmp_path / "nowhere")
    with pytest.raises(
        ConfigurationError, match=r"POSTGRES_PASSWORD_FILE=.*cannot be read: No such"
    ):
        read({"POSTGRES_PASSWORD_FILE": missing})
