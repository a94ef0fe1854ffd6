"""`espalier exporter` as a program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import migrate
from espalier.processes import python_environment


def start(tmp_path: Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "espalier.cli.main", "exporter", "--address", "127.0.0.1:0"],
        cwd=tmp_path,
        env={**os.environ, **python_environment(), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ready(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    line = program.stdout.readline()
    assert line.startswith("espalier exporter: ready on http://127.0.0.1:"), line
    return line.split()[-1]


def test_it_answers_until_it_is_told_to_end(tmp_path):
    with embedded.temporary() as server:
        with connect(server.dsn()) as connection:
            migrate(connection)
        program = start(
            tmp_path,
            POSTGRES_HOST=server.host,
            POSTGRES_PORT=str(server.port),
            POSTGRES_USER=server.user,
            POSTGRES_PASSWORD=server.password,
            POSTGRES_DB="espalier",
        )
        try:
            answer = httpx.get(ready(program), timeout=30)
            assert answer.status_code == 200
            assert "\nespalier_exporter_up 1.0\n" in answer.text
        finally:
            program.send_signal(signal.SIGTERM)
        _, errors = program.communicate(timeout=30)
        assert program.returncode == 130
        assert errors.count("\n") == 1, errors


def test_it_runs_without_a_database(tmp_path):
    program = start(tmp_path, POSTGRES_HOST=str(tmp_path))
    try:
        assert "\nespalier_exporter_up 0.0\n" in httpx.get(ready(program), timeout=30).text
    finally:
        program.send_signal(signal.SIGTERM)
        program.communicate(timeout=30)
