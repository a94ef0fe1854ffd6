"""A PostgreSQL of a test's own that can be stopped, hung and started again, for tests of faults."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psycopg

from espalier.postgres import embedded
from espalier.processes import reserved_port

TABLE = "online.churn_customer_monthly"
_ESTABLISHED = "01"


class Database:
    """A server on loopback, always on the same port. Use as a context manager; it starts then."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Describe it: the cluster lies in `folder`, `settings` are lines of postgresql.conf."""
        self.data, self._log = folder / "data", folder / "postgres.log"
        self._settings = settings
        self._stack, self._running = ExitStack(), ExitStack()

    def __enter__(self) -> Self:
        """Reserve the port and start."""
        self.port = self._stack.enter_context(reserved_port())
        embedded.make_cluster(self.data)
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in self._settings.items())
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, whatever state it is in."""
        self.go_on()
        self.stop()
        self._stack.close()

    def start(self) -> None:
        """Start it; it answers when this returns."""
        server = self._running.enter_context(
            embedded.serve(self.data, log=self._log, port=self.port, durable=False)
        )
        self.dsn = server.dsn()

    def stop(self) -> None:
        """Stop it; nothing listens when this returns."""
        self._running.close()

    def kill(self) -> None:
        """End it without a word, as by a crash; then `stop` and `start`."""
        pids = self._frozen()
        _signal(pids, signal.SIGKILL)
        # A new server does not start over the memory of one whose processes are still ending.
        _wait_for(pids, "ZX")

    def hang(self) -> None:
        """Stop its processes where they are: it listens, and says nothing."""
        _signal(self._frozen(), signal.SIGSTOP)

    def go_on(self) -> None:
        """Let its processes go on."""
        _signal(self._pids(), signal.SIGCONT)

    def limit_files(self, size: int) -> None:
        """Let none of its files grow over `size` bytes; -1 for no limit."""
        soft = "unlimited" if size < 0 else size
        # A process may limit others of its own user; root as such may not everywhere.
        as_owner = ["setpriv", "--reuid=nobody", "--regid=65534", "--clear-groups"]
        for pid in self._pids():
            limit = ["prlimit", f"--pid={pid}", f"--fsize={soft}:"]
            subprocess.run([*(as_owner if os.geteuid() == 0 else []), *limit], check=True)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement on a connection of its own, and give its rows."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def locked(self, table: str = TABLE) -> Iterator[None]:
        """Hold a lock on `table` that no reader and no writer passes."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
            connection.rollback()

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Have each read of the online table take so long."""
        schema, name = TABLE.split(".")
        view = (
            f"SELECT stored.* FROM (SELECT pg_sleep({seconds}) OFFSET 0) AS pause, {schema}.stored"  # noqa: S608
        )
        self.execute(f"ALTER TABLE {TABLE} RENAME TO stored; CREATE VIEW {TABLE} AS {view}")
        try:
            yield
        finally:
            self.execute(f"DROP VIEW {TABLE}; ALTER TABLE {schema}.stored RENAME TO {name}")

    def connections(self) -> int:
        """How many connections to it the clients on this machine hold."""
        wanted = f":{self.port:04X}"
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        return sum(
            remote.endswith(wanted) and state == _ESTABLISHED
            for _, _, remote, state, *_ in map(str.split, lines)
        )

    def _frozen(self) -> Sequence[int]:
        """Its processes, the first of which is stopped, so that it starts no other."""
        first = self._pids()[:1]
        _signal(first, signal.SIGSTOP)
        _wait_for(first, "TZX")
        return self._pids()

    def _pids(self) -> Sequence[int]:
        """The server's first process, then those that it started."""
        try:
            first = int((self.data / "postmaster.pid").read_text().split()[0])
            return [first, *_children(first)]
        except FileNotFoundError:
            return []


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait_for(pids: Sequence[int], states: str, seconds: float = 20) -> None:
    """Wait until each process is in one of `states`, as proc(5) names them, or gone."""
    deadline = time.monotonic() + seconds
    while any(_state(pid) not in states for pid in pids):
        assert time.monotonic() < deadline, f"{pids} are not all {states}"
        time.sleep(0.002)


def _state(pid: int) -> str:
    """A process's state; X when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def _children(parent: int) -> list[int]:
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in text.split()]
