"""Starts servers as child processes that never outlive us, and waits for them by probes."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from espalier import guard
from espalier.errors import DependencyUnreachable

PROBE_SECONDS = 0.05


class Process:
    """One server process under a guard, its output in a log file.

    Use as a context manager, or call `stop`. If this process ends in any way, so does that one.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace_seconds: float = 10.0,
    ) -> None:
        """Start `argv`; `env` is added to this process's environment."""
        self.name, self.log, self._grace = name, log, grace_seconds
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._guard = subprocess.Popen(
                _guarded(argv, stop_signal, grace_seconds),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """The command's exit code, or None while it runs."""
        return self._guard.poll()

    def stop(self) -> None:
        """Ask the process to end, and wait until it has."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(timeout=self._grace + 10)

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Wait until `ready()` is true.

        Raises:
            DependencyUnreachable: the process ended, or was not ready within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if self.exit_code is not None:
                raise DependencyUnreachable(
                    f"{self.name} ended at start with exit code {self.exit_code}: "
                    f"{_last_line(self.log)}",
                    fix=f"its log is {self.log}",
                )
            if time.monotonic() > deadline:
                raise DependencyUnreachable(
                    f"{self.name} was not ready within {seconds:.0f} s",
                    fix=f"its log is {self.log}",
                )
            time.sleep(PROBE_SECONDS)

    def __enter__(self) -> Self:
        """The process itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()


def run_guarded(argv: Sequence[str], *, env: Mapping[str, str], grace_seconds: float = 10.0) -> int:
    """Run a command with our output until it ends; give its exit code.

    If this process ends in any way, so does the command, with all that it started.

    Args:
        argv: The command.
        env: Added to this process's environment.
        grace_seconds: How long it may take to end when it is told to.
    """
    with subprocess.Popen(
        _guarded(argv, signal.SIGTERM, grace_seconds),
        stdin=subprocess.PIPE,
        env={**os.environ, **env},
        start_new_session=True,
    ) as process:
        try:
            return process.wait()
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=grace_seconds + 10)


def _guarded(argv: Sequence[str], stop_signal: signal.Signals, grace_seconds: float) -> list[str]:
    return [
        *(sys.executable, "-S", "-E", guard.__file__),
        *(stop_signal.name, str(grace_seconds), *argv),
    ]


def python_environment() -> dict[str, str]:
    """What a child `sys.executable -m module` needs to import what we can."""
    # Absolute, since the child may run in another folder.
    return {"PYTHONPATH": os.pathsep.join(str(Path(p).absolute()) for p in sys.path if p)}


@contextmanager
def reserved_port(preferred: int = 0) -> Iterator[int]:
    """A free port as by `free_port`, which no other program of ours takes while this is held.

    A server binds its port seconds after it was chosen; two that start at once would choose the
    same, and one would then talk to the other's servers.
    """
    for wanted in (preferred, *[0] * 100):
        port = free_port(wanted)
        try:
            lock = (Path(tempfile.gettempdir()) / f"espalier-port-{port}.lock").open("a")
        except PermissionError:
            # Another user's.
            continue
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield port
            return
    raise DependencyUnreachable("no free port on the loopback interface")


def free_port(preferred: int = 0) -> int:
    """`preferred` on loopback when nothing listens there, otherwise one the system picks."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            chosen: int = probe.getsockname()[1]
            return chosen
    raise DependencyUnreachable("no free port on the loopback interface")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")
