from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from espalier.errors import ConfigurationError, DependencyUnreachable
from espalier.postgres import foreground
from espalier.processes import Process, python_environment, reserved_port
from espalier.settings import Settings

RUN = """
import os, sys
from pathlib import Path
from espalier import settings
from espalier.postgres import foreground
argv = foreground.prepare(Path(sys.argv[1]), settings.read(os.environ), "other")
os.execvp(argv[0], argv)
"""
# What a shell, a connection URI, SQL and a .pgpass each take for something else.
PASSWORD = "a:b\\c'd\"e$f g/@%"


@pytest.fixture
def settings():
    with reserved_port() as port:
        yield Settings(postgres_port=port, postgres_user="own", postgres_password=PASSWORD)


@contextmanager
def running(folder: Path, settings: Settings):
    psql = folder / "psql"
    foreground.write_psql(psql, settings)
    process = Process(
        "PostgreSQL",
        [sys.executable, "-c", RUN, str(folder / "postgres")],
        log=folder / "log",
        env={**python_environment(), **settings.environment()},
        stop_signal=signal.SIGINT,
    )
    with process:
        process.wait_until(lambda: asked(psql, "SELECT 1").returncode == 0, seconds=60)
        yield psql


def asked(psql: Path, query: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [psql, "-qAtc", query], capture_output=True, text=True, timeout=30, check=False
    )


def test_its_role_password_and_databases_are_there_when_it_answers(tmp_path: Path, settings):
    with running(tmp_path, settings) as psql:
        said = asked(
            psql, "SELECT current_user, current_database(), current_setting('server_version')"
        )
        assert said.stdout.startswith("own|espalier|16."), said
        other = replace(settings, postgres_db="other")
        psycopg.connect(other.dsn).close()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(replace(settings, postgres_password="other").dsn)
        asked(psql, "CREATE TABLE kept AS SELECT 7 AS n")
        assert psql.stat().st_mode & 0o077 == 0
        assert psql.with_name("psql.pgpass").stat().st_mode & 0o077 == 0
        # Who else has the cluster is an error, not a second server.
        with pytest.raises(DependencyUnreachable, match=r"postmaster\.pid"):
            foreground.prepare(tmp_path / "postgres", settings)
    changed = replace(settings, postgres_password="another", postgres_db="third")
    with running(tmp_path, changed):
        psycopg.connect(changed.dsn).close()
        with psycopg.connect(replace(changed, postgres_db="espalier").dsn) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (7,)


def test_killed_it_starts_again_over_the_same_data(tmp_path: Path, settings):
    with running(tmp_path, settings) as psql:
        asked(psql, "CREATE TABLE kept AS SELECT 7 AS n")
        pid = int((tmp_path / "postgres" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while True:
        try:
            # Its children leave a moment after it.
            foreground.prepare(tmp_path / "postgres", settings)
        except DependencyUnreachable:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        else:
            break
    with running(tmp_path, settings) as psql:
        assert asked(psql, "SELECT n FROM kept").stdout == "7\n"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"postgres_password": ""}, "POSTGRES_PASSWORD is not set"),
        ({"postgres_host": "db.example"}, "POSTGRES_HOST=db.example is not this machine"),
    ],
)
def test_settings_that_do_not_fit_are_told(tmp_path: Path, changed, says):
    settings = replace(Settings(postgres_password="x"), **changed)
    with pytest.raises(ConfigurationError, match=says):
        foreground.prepare(tmp_path / "postgres", settings)
    assert not list(tmp_path.iterdir())
