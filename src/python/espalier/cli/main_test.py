from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import packaged
from espalier.processes import python_environment
from espalier.serving.testing import STALE
from espalier.serving.testing_server import Running
from espalier.testing_web import NOBODY


@pytest.fixture
def espalier(tmp_path: Path):
    """Runs the command in a folder of its own."""

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "espalier.cli.main", *arguments],
            cwd=tmp_path,
            env={**os.environ, **python_environment(), **env},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run


def said(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """The exit code and the one line of a command that failed."""
    assert done.stdout == ""
    assert done.stderr.startswith("espalier: "), done.stderr
    assert done.stderr.endswith("\n"), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr[len("espalier: ") : -1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "the following arguments are required: COMMAND; see espalier --help"),
        (["--nope"], "the following arguments are required: COMMAND; see espalier --help"),
        (["predict"], "the following arguments are required: entity_id; see espalier predict"),
        (["quickstart", "--nope"], "unrecognized arguments: --nope; see espalier --help"),
        (["migrate", "now"], "unrecognized arguments: now; see espalier --help"),
        (["quickstart", "--project", "Nope"], "'Nope' is not a project's name"),
        (["quickstart", "--project", "nope"], "no project 'nope' here; it would be declared in"),
        (["dance"], "argument COMMAND: invalid choice: 'dance' (choose from"),
    ],
)
def test_wrong_use_is_2_and_one_line(espalier, arguments, reason):
    code, line = said(espalier(*arguments))
    assert code == 2
    assert line.startswith(reason)


@pytest.mark.parametrize("command", [[], ["quickstart"], ["predict"], ["migrate"]])
def test_help(espalier, command):
    done = espalier(*command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(" ".join(["usage: espalier", *command]))
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_wrong_setting_is_2_and_one_line(espalier):
    code, line = said(espalier("predict", "u0001", POSTGRES_PORT="many"))
    assert code == 2
    assert line.startswith("POSTGRES_PORT='many' is not a valid int")


def test_quickstart_without_data_is_2_and_one_line(espalier, tmp_path: Path):
    code, line = said(espalier("quickstart", ESPALIER_DATA_DIR=str(tmp_path / "empty")))
    assert code == 2
    assert line.startswith(f"no batches in {tmp_path}/empty/churn; put them there")


def test_migrate_applies_what_is_missing_once(espalier):
    with embedded.temporary() as server:
        env = {
            "POSTGRES_HOST": server.host,
            "POSTGRES_PORT": str(server.port),
            "POSTGRES_USER": server.user,
            "POSTGRES_PASSWORD": server.password,
        }
        first, second = espalier("migrate", **env), espalier("migrate", **env)
        with connect(server.dsn()) as connection:
            applied = connection.execute("SELECT number FROM espalier.migrations").fetchall()
    numbers = [migration.number for migration in packaged()]
    assert sorted(number for (number,) in applied) == numbers
    assert (first.returncode, first.stdout, first.stderr) == (
        0,
        f"applied {', '.join(map(str, numbers))}\n",
        "",
    )
    assert (second.returncode, second.stdout, second.stderr) == (0, "nothing to apply\n", "")


def test_migrate_without_postgresql_is_3_and_one_line(espalier, tmp_path: Path):
    code, line = said(espalier("migrate", POSTGRES_HOST=str(tmp_path)))
    assert code == 3
    assert line.startswith("PostgreSQL: ")


def test_predict(espalier, prediction_server: Running):
    address = prediction_server.grpc_address
    done = espalier("predict", "u0200", ESPALIER_GRPC_ADDRESS=address)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1  score 0.6225  model version 1  features of 1998-06-30\n"
    done = espalier("predict", STALE, "--address", address)
    assert done.stdout.endswith("  features of 1997-12-31 (stale features)\n")


def test_predict_of_an_unknown_entity_is_2_and_one_line(espalier, prediction_server: Running):
    code, line = said(espalier("predict", "nobody", "--address", prediction_server.grpc_address))
    assert code == 2
    assert "nobody" in line


def test_predict_with_nothing_listening_is_3_and_one_line(espalier):
    code, line = said(espalier("predict", "u0001", "--address", NOBODY))
    assert code == 3
    assert line.startswith(f"{NOBODY}: ")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_no_traceback(
    tmp_path: Path, prediction_server: Running, unbuffered
):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "espalier.cli.main", "predict", "u0200"],
        cwd=tmp_path,
        env={
            **os.environ,
            **python_environment(),
            "ESPALIER_GRPC_ADDRESS": prediction_server.grpc_address,
            "PYTHONUNBUFFERED": unbuffered,
        },
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
