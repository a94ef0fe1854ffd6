"""`espalier doctor` as a program, where nothing runs, and the page that tells of its checks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from espalier.cli.doctor.catalog import CHECKS
from espalier.processes import python_environment

PAGE = Path("docs/troubleshooting.md").absolute()
# Nothing listens on any of them.
NOWHERE = {
    "POSTGRES_HOST": "127.0.0.1",
    "POSTGRES_PORT": "1",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:2",
    "PREFECT_API_URL": "http://127.0.0.1:3/api",
    "ESPALIER_GRPC_ADDRESS": "127.0.0.1:4",
    "ESPALIER_HTTP_ADDRESS": "127.0.0.1:5",
    "ESPALIER_EXPORTER_ADDRESS": "127.0.0.1:6",
    "ESPALIER_PROMETHEUS_URL": "http://127.0.0.1:7",
    "ESPALIER_GRAFANA_URL": "http://127.0.0.1:8",
}


@pytest.fixture
def doctor(tmp_path: Path):
    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("POSTGRES", "ESPALIER_"))
        }
        return subprocess.run(
            [sys.executable, "-m", "espalier.cli.main", "doctor", *arguments],
            cwd=tmp_path,
            env={**inherited, **python_environment(), **NOWHERE, **env},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    return run


def test_where_nothing_runs_each_check_is_one_line_with_its_fix(doctor):
    done = doctor()
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines[: len(CHECKS)]] == [check.name for check in CHECKS]
    states = {line.split()[1]: line.split()[0] for line in lines[: len(CHECKS)]}
    assert {name for name, state in states.items() if state == "fail"} == {
        *("database", "mlflow", "server", "exporter", "prometheus", "prefect"),
    }
    assert states["grafana"] == "note"
    assert states["model"] == states["deployments"] == "skipped"
    assert all("; " in line for line in lines if line.startswith("fail"))
    assert lines[-1].startswith("6 failed: database, mlflow, server, exporter, prometheus, prefect")


def test_a_wrong_environment_is_the_only_thing_told(doctor):
    done = doctor(POSTGRES_PORT="many")
    assert (done.returncode, done.stderr) == (1, "")
    assert "fail    environment   POSTGRES_PORT='many' is not a valid int" in done.stdout
    assert done.stdout.count("\nfail ") == 1
    assert "1 failed: environment" in done.stdout


def test_json_and_chosen_checks(doctor):
    done = doctor("--json", "--only", "interpreter", "--only", "grafana", "--skip", "interpreter")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["green"] is True
    [one] = told["checks"]
    assert set(one) == {"check", "state", "what", "fix", "seconds"}
    assert (one["check"], one["state"]) == ("grafana", "note")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "nope"], "there is no check 'nope'; there are interpreter, environment"),
        (["--only", "disk", "--skip", "disk"], "no check is left"),
        (["--as-of", "soon"], "argument --as-of: 'soon' is not a day, as 1998-06-30"),
        (["--project", "nope"], "no project 'nope' here"),
    ],
)
def test_wrong_use_is_2_and_one_line(doctor, arguments, told):
    done = doctor(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"espalier: {told}")
    assert done.stderr.count("\n") == 1


def test_the_page_has_a_section_for_each_check_in_their_order():
    sections = re.findall(r"^### (\S+)$", PAGE.read_text(), re.MULTILINE)
    assert sections == [check.name for check in CHECKS]


def test_each_check_needs_only_those_told_before_it():
    names = [check.name for check in CHECKS]
    for place, check in enumerate(CHECKS):
        assert set(check.needs) <= set(names[:place])
