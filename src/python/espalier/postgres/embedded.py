"""An own PostgreSQL 16 on this machine, for quickstart and tests.

All other code sees a connection string. The server ends when the process that started it does.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from espalier.errors import DependencyUnreachable
from espalier.postgres import programs
from espalier.processes import Process

USER = "espalier"
# A Unix socket's path holds at most 103 bytes on macOS, 107 on Linux.
_SOCKET_PATH_LIMIT = 103


@dataclass(frozen=True)
class Server:
    """Where a running server is reached; `host` is an address or a socket's folder."""

    host: str
    port: int
    user: str
    password: str

    def dsn(self, database: str = USER) -> str:
        """The connection URI of one of its databases."""
        secret = f":{self.password}" if self.password else ""
        if self.host.startswith("/"):
            return f"postgresql://{self.user}{secret}@/{database}?host={self.host}&port={self.port}"
        return f"postgresql://{self.user}{secret}@{self.host}:{self.port}/{database}"


@contextmanager
def serve(data: Path, *, log: Path, port: int, durable: bool = True) -> Iterator[Server]:
    """Run a server on loopback over the cluster in `data`, made at first use.

    Args:
        data: The cluster's folder; its password is kept in it.
        log: The server's log file.
        port: The TCP port to listen on.
        durable: Whether commits survive a crash of the machine; false is faster.

    Raises:
        DependencyUnreachable: it does not start.
        ConfigurationError: the binaries cannot run here.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    make_cluster(data)
    password = (data / "espalier.password").read_text()
    server = Server("127.0.0.1", port, USER, password)
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", ""]
    with _running(data, log, options, server, durable=durable):
        yield server


@contextmanager
def temporary() -> Iterator[Server]:
    """A new empty server for tests, reached by a Unix socket in a private folder."""
    root = tempfile.gettempdir()
    if len(root) > _SOCKET_PATH_LIMIT - 40:
        root = "/tmp"  # noqa: S108  # a private folder is made in it
    folder = Path(tempfile.mkdtemp(prefix="espalier-pg-", dir=root))
    try:
        data, log = folder / "data", folder / "postgres.log"
        make_cluster(data)
        programs.give(folder)
        server = Server(str(folder), 5432, USER, (data / "espalier.password").read_text())
        options = ["-h", "", "-p", "5432", "-k", str(folder)]
        with _running(data, log, options, server, durable=False):
            yield server
    finally:
        shutil.rmtree(folder)


def create_database(server: Server, name: str) -> None:
    """Create a database unless it is there."""
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if found.fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


@contextmanager
def _running(
    data: Path, log: Path, options: list[str], server: Server, *, durable: bool
) -> Iterator[None]:
    if not durable:
        options = [*options, "-c", "fsync=off", "-c", "full_page_writes=off"]
    process = Process(
        "PostgreSQL",
        [*programs.command("postgres"), "-D", str(data), *options],
        log=log,
        # SIGINT is PostgreSQL's fast shutdown: roll back, disconnect, stop.
        stop_signal=signal.SIGINT,
        grace_seconds=30,
        # What follows it says only that the server ends.
        cause=r"could not bind|FATAL:|PANIC:",
    )
    with process:
        process.wait_until(lambda: _answers(server), seconds=60)
        create_database(server, USER)
        yield


def _answers(server: Server) -> bool:
    try:
        psycopg.connect(server.dsn("postgres"), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def make_cluster(
    data: Path, *, user: str = USER, password: str | None = None, folder: Path | None = None
) -> None:
    """Make a cluster, unless it is there, beside its place and move it: a kill leaves none or all.

    Args:
        data: The cluster's folder; the password is kept in it.
        user: The superuser.
        password: The superuser's; default: a random one.
        folder: The installation of PostgreSQL, as for `programs.command`.

    Raises:
        DependencyUnreachable: initdb fails.
        ConfigurationError: the binaries cannot run here.
    """
    if data.exists():
        return
    data.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=data.parent))
    try:
        password_file, cluster = making / "password", making / "data"
        password_file.touch(mode=0o600)
        password_file.write_text(password or secrets.token_hex(16))
        cluster.mkdir(mode=0o700)
        programs.give(making, password_file, cluster)
        command = [
            *programs.command("initdb", folder=folder),
            *("-D", str(cluster), "-U", user, "--pwfile", str(password_file)),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
            *("--no-sync", "--no-instructions"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DependencyUnreachable(
                f"initdb failed: {done.stderr.strip() or f'exit code {done.returncode}'}"
            )
        password_file.rename(cluster / "espalier.password")
        cluster.rename(data)
    finally:
        shutil.rmtree(making, ignore_errors=True)
