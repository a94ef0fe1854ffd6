from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from espalier.errors import DependencyUnreachable
from espalier.postgres import embedded, programs
from espalier.processes import python_environment, reserved_port

RUN_AND_WAIT = """
import sys, time
from pathlib import Path
from espalier.postgres import embedded
with embedded.serve(Path(sys.argv[1]) / "data", log=Path(sys.argv[1]) / "log", port=int(sys.argv[2])) as s:
    print(s.dsn(), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


def test_data_stays_over_a_restart_and_nothing_runs_after(tmp_path: Path, port):
    with embedded.serve(tmp_path / "data", log=tmp_path / "log", port=port) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            version = connection.execute("SHOW server_version").fetchone()
            connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        dsn = server.dsn()
    assert version is not None
    assert version[0].startswith("16.")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)
    with (
        embedded.serve(tmp_path / "data", log=tmp_path / "log", port=port) as server,
        psycopg.connect(server.dsn()) as connection,
    ):
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)


def test_a_killed_owner_takes_the_server_along_and_the_next_one_recovers(tmp_path: Path, port):
    owner = subprocess.Popen(
        [sys.executable, "-c", RUN_AND_WAIT, str(tmp_path), str(port)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **python_environment()},
    )
    assert owner.stdout is not None
    dsn = owner.stdout.readline().strip()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        # The server closes this connection when it goes.
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(60)")
    owner.stdout.close()
    wait_until_free(port)
    with (
        embedded.serve(tmp_path / "data", log=tmp_path / "log", port=port) as server,
        psycopg.connect(server.dsn()) as connection,
    ):
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)


def listens(port) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def wait_until_free(port):
    deadline = time.monotonic() + 30
    while listens(port):
        assert time.monotonic() < deadline, "the server did not end with its owner"
        time.sleep(0.05)


def test_a_port_in_use_is_one_line(tmp_path: Path, port):
    with (
        embedded.serve(tmp_path / "one", log=tmp_path / "one.log", port=port),
        pytest.raises(
            DependencyUnreachable, match=r"ended at start .*: could not bind .*in use; its log is"
        ),
        embedded.serve(tmp_path / "two", log=tmp_path / "two.log", port=port),
    ):
        pass


def test_an_interrupted_making_leaves_no_half_cluster(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(programs, "command", lambda _program, **_options: ["false"])
    with pytest.raises(DependencyUnreachable, match="initdb failed"):
        embedded.make_cluster(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_server_leaves_no_folder():
    with embedded.temporary() as server:
        folder = Path(server.host)
        assert folder.is_dir()
    assert not folder.exists()


def test_a_private_folder_for_temporary_files_does_not_hide_the_programs(
    tmp_path: Path, monkeypatch
):
    tmp_path.chmod(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert programs._temporary() == Path("/tmp")
