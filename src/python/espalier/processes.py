"""Starts servers as child processes that never outlive us, and waits for them by probes."""

from __future__ import annotations

import fcntl
import os
import random
import re
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
# Under the ranges that Linux (32768 to 60999) and macOS (49152 to 65535) give by themselves, and
# under the blocks of `espalier.pex env`, whose servers may be about to start.
_OUR_PORTS = range(10_000, 20_000)


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
        cause: str = "",
    ) -> None:
        """Start `argv`.

        Args:
            name: What errors call it.
            argv: The command.
            log: The file its output is added to.
            env: Added to this process's environment.
            cwd: The folder it runs in.
            stop_signal: What asks it to end.
            grace_seconds: How long it may then take.
            cause: A regular expression for the line of its output that tells why it ended at start;
                without one, the last line is told.
        """
        self.name, self.log, self._grace, self._cause = name, log, grace_seconds, cause
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._start = output.tell()
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
                    f"{self.name} ended at start with exit code {self.exit_code}: {self._reason()}",
                    fix=f"its log is {self.log}",
                )
            if time.monotonic() > deadline:
                raise DependencyUnreachable(
                    f"{self.name} was not ready within {seconds:.0f} s",
                    fix=f"its log is {self.log}",
                )
            time.sleep(PROBE_SECONDS)

    def _reason(self) -> str:
        """The line of its output that tells why it ended."""
        with self.log.open("rb") as file:
            file.seek(self._start)
            lines = file.read().decode(errors="replace").splitlines()
        told = [line.strip() for line in lines if line.strip()]
        causes = [line for line in told if self._cause and re.search(self._cause, line)]
        return (causes[:1] or told[-1:] or ["no output"])[0]

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
    """A free port on loopback that no program of ours takes while this is held.

    A server binds its port seconds after it was chosen; two that start at once would choose the
    same, and one would then talk to the other's servers. The system gives ports of its own range to
    whoever asks for any and to each connection that is opened, so ours are not of that range.

    Args:
        preferred: The port when it is free; otherwise, or for 0, another one.

    Raises:
        DependencyUnreachable: no port is free.
    """
    others = random.SystemRandom().sample(_OUR_PORTS, 100)
    for port in (preferred, *others) if preferred else others:
        with _lock_of(port) as ours:
            if ours and _is_free(port):
                yield port
                return
    raise DependencyUnreachable("no free port on the loopback interface")


@contextmanager
def _lock_of(port: int) -> Iterator[bool]:
    """Hold the port's lock file; whether it could be had. A killed holder's is had again."""
    path = Path(tempfile.gettempdir()) / f"espalier-port-{port}.lock"
    try:
        lock = path.open("a")
    except PermissionError:
        # Another user's.
        yield False
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder may have removed the file after we opened it; the next one makes its own.
            ours = os.path.samestat(os.fstat(lock.fileno()), path.stat())
        except (BlockingIOError, FileNotFoundError):
            ours = False
        try:
            yield ours
        finally:
            if ours:
                path.unlink(missing_ok=True)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
