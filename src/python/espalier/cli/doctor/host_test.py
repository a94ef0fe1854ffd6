from __future__ import annotations

import shutil
import sys

import pytest

from espalier.cli.doctor import host
from espalier.cli.doctor.testing import found, subject
from espalier.settings import Settings


def test_this_interpreter_is_ours(tmp_path):
    finding = found(subject(tmp_path), "interpreter")
    assert finding.state == "ok"
    assert finding.what.startswith("CPython 3.11.")


def test_another_interpreter_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 12, 1, "final", 0))
    finding = found(subject(tmp_path), "interpreter")
    assert finding.state == "fail"
    assert "CPython 3.12.1" in finding.what
    assert "CPython 3.11" in finding.fix


def test_an_env_file_is_counted(tmp_path):
    (tmp_path / ".env").write_text("# ours\nPOSTGRES_PORT=6000\nexport ESPALIER_ACTOR='a b'\n\n")
    finding = found(subject(tmp_path, env={"POSTGRES_HOST": "localhost"}), "environment")
    assert finding.state == "ok"
    assert finding.what == (f"2 from {tmp_path}/.env, 1 from the environment, the rest by default")


def test_a_broken_line_of_the_env_file_is_named(tmp_path):
    (tmp_path / ".env").write_text("POSTGRES_PORT=6000\nPOSTGRES_HOST = 'open\n")
    finding = found(subject(tmp_path), "environment")
    assert finding.state == "fail"
    assert finding.what == f"{tmp_path}/.env line 2 is not NAME=value"


def test_a_value_of_another_type_fails(tmp_path):
    (tmp_path / ".env").write_text("POSTGRES_PORT=many\n")
    finding = found(subject(tmp_path), "environment")
    assert finding.state == "fail"
    assert finding.what == "POSTGRES_PORT='many' is not a valid int"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ESPALIER_GRPC_ADRESS", "ESPALIER_GRPC_ADRESS (did you mean ESPALIER_GRPC_ADDRESS?)"),
        ("POSTGRES_PASSWROD", "POSTGRES_PASSWROD (did you mean POSTGRES_PASSWORD?)"),
        ("ESPALIER_WHATEVER_ELSE", "ESPALIER_WHATEVER_ELSE (there is none like it)"),
    ],
)
def test_a_variable_that_nothing_reads_is_warned_of(tmp_path, name, told):
    finding = found(subject(tmp_path, env={name: "x"}), "environment")
    assert finding.state == "warn"
    assert finding.what == f"nothing reads {told}"


def test_variables_of_others_are_none_of_ours(tmp_path):
    others = {"POSTGRES_INITDB_ARGS": "-k", "ESPALIER_PROMETHEUS_PORT": "9090", "HOME": "/"}
    assert found(subject(tmp_path, env=others), "environment").state == "ok"


def test_addresses_by_default_are_all_different(tmp_path):
    assert found(subject(tmp_path), "addresses").state == "ok"


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"ESPALIER_GRPC_ADDRESS": "50051"}, "'50051' is not an address to listen on"),
        ({"ESPALIER_HTTP_ADDRESS": "127.0.0.1:99999"}, "'127.0.0.1:99999' is not an address"),
        (
            {"ESPALIER_HTTP_ADDRESS": "127.0.0.1:5000"},
            "ESPALIER_HTTP_ADDRESS and MLFLOW_TRACKING_URI are both 127.0.0.1:5000",
        ),
        ({"PREFECT_API_URL": "localhost:4200"}, "PREFECT_API_URL is no http or https address"),
        (
            {"ESPALIER_GRAFANA_URL": "http://nowhere.invalid"},
            "ESPALIER_GRAFANA_URL: nowhere.invalid has no address",
        ),
        ({"MLFLOW_TRACKING_URI": "http://h:port"}, "MLFLOW_TRACKING_URI is no http"),
    ],
)
def test_a_wrong_address_is_named(tmp_path, env, told):
    finding = found(subject(tmp_path, env=env), "addresses")
    assert finding.state == "fail"
    assert told in finding.what
    assert finding.fix


def test_the_disk_has_room_or_not(tmp_path, monkeypatch):
    folders = {
        "ESPALIER_STATE_DIR": str(tmp_path / "a" / "b"),
        "ESPALIER_REPORTS_DIR": str(tmp_path),
        "ESPALIER_PEX_CACHE": str(tmp_path),
    }
    looked_at = subject(tmp_path, env=folders)
    real = shutil.disk_usage(tmp_path)

    def states():
        for free in (10 * 2**30, 2 * 2**30, 2**29):
            monkeypatch.setattr(shutil, "disk_usage", lambda _, f=free: real._replace(free=f))
            yield found(looked_at, "disk").state

    assert list(states()) == ["ok", "warn", "fail"]


def test_a_folder_that_is_a_file_fails(tmp_path):
    (tmp_path / "file").write_text("")
    env = {"ESPALIER_REPORTS_DIR": str(tmp_path / "file" / "reports")}
    finding = found(subject(tmp_path, env=env), "disk")
    assert finding.state == "fail"
    assert finding.fix == "set ESPALIER_REPORTS_DIR anew"


def test_others_variables_are_not_settings():
    assert not set(host._OTHERS) & set(Settings().environment())
