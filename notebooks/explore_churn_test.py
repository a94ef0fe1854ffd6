"""The notebook as a program, over the servers of a real quickstart."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from espalier.orchestration.testing import whole_history
from espalier.processes import Process, python_environment

NOTEBOOK = Path("notebooks/explore_churn.py").absolute()
OURS = ("ESPALIER_", "POSTGRES_", "PREFECT", "MLFLOW_")


def said(log, pattern):
    found = re.search(pattern, log.read_text(), re.MULTILINE)
    assert found, log.read_text()
    return found[1]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """The variables that name the servers of a quickstart, which stay until the end."""
    folder = tmp_path_factory.mktemp("stack")
    log, state = folder / "quickstart.log", folder / "state"
    # One batch instead of thirteen.
    whole_history(folder / "seeds" / "churn" / "month_012", months=13)
    # Quickstart finds free ports by itself.
    mine = {name: "" for name in os.environ if name.startswith(OURS)}
    env = {
        **mine,
        **python_environment(),
        "ESPALIER_STATE_DIR": str(state),
        "ESPALIER_DATA_DIR": str(folder / "seeds"),
        "ESPALIER_REPORTS_DIR": str(folder / "reports"),
    }
    command = [sys.executable, "-m", "espalier.cli.main", "quickstart", "--keep"]
    with Process("quickstart", command, log=log, env=env, cwd=folder, grace_seconds=60) as running:
        running.wait_until(lambda: "Everything is running" in log.read_text(), seconds=500)
        yield {
            **env,
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": said(log, r"PostgreSQL +16, on port (\d+)$"),
            "POSTGRES_PASSWORD": (
                state / "sample" / "churn" / "postgres" / "espalier.password"
            ).read_text(),
            "MLFLOW_TRACKING_URI": said(log, r"^  MLflow +(http://\S+)$"),
            "ESPALIER_GRPC_ADDRESS": said(log, r"^  gRPC +(\S+:\d+)$"),
        }


def test_the_notebook_runs_as_a_program(stack, tmp_path):
    done = subprocess.run(
        [sys.executable, NOTEBOOK],
        cwd=tmp_path,
        env={**os.environ, **stack, "ESPALIER_REPORTS_DIR": str(tmp_path), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "labels known on 1998-06-30" in done.stdout
    for told in ("one-time buyers", "# Model card: churn", "recency_days", "churn version 1"):
        assert told in done.stdout
    assert "drift" in (tmp_path / "notebook/drift.html").read_text()
    assert (tmp_path / "notebook/labels.png").stat().st_size > 1000
