"""One checkout's stack under process-compose: start it, ask it, kill parts of it, end it."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# What a stack reads of a checkout.
_PARTS = ("deploy", "data", "dist", "feature_repo", ".pc_env")
_TOKEN = "ESPALIER_STACK_CHECK"  # noqa: S105  # it marks processes
_LINES = 20


class Failed(Exception):
    """A check said no."""


@dataclass(frozen=True)
class State:
    """What process-compose says of one process."""

    name: str
    status: str
    healthy: bool
    probed: bool
    exit_code: int
    restarts: int
    pid: int

    @property
    def runs(self) -> bool:
        """Whether it is a server that is up."""
        return self.status == "Running"

    @property
    def ready(self) -> bool:
        """Whether it answers its probe, or has done what it was to do."""
        if self.runs:
            return self.healthy or not self.probed
        return self.status == "Completed" and self.exit_code == 0

    @property
    def given_up(self) -> bool:
        """Whether nothing will come of it."""
        if self.status == "Completed":
            return self.exit_code != 0
        return self.status in ("Error", "Skipped")


def read_states(text: str) -> Mapping[str, State]:
    """The answer of `process-compose list -o json`, by the processes' names."""
    found: list[dict[str, Any]] = json.loads(text)
    return {
        one["name"]: State(
            name=one["name"],
            status=one["status"],
            healthy=one["is_ready"] == "Ready",
            probed=one["has_ready_probe"],
            exit_code=one["exit_code"],
            restarts=one["restarts"],
            pid=one["pid"],
        )
        for one in found
    }


def free_block(environments: Callable[[int], Mapping[str, str]], *, first: int) -> int:
    """The first block of ports that nothing listens on.

    Args:
        environments: The variables of a block.
        first: The block to begin at.
    """
    for block in range(first, first + 100):
        ports = [v for k, v in environments(block).items() if k.endswith("_PORT")]
        if all(_free(int(port)) for port in ports):
            return block
    raise Failed(f"no free block of ports from {first} on")


def read_environment(text: str) -> Mapping[str, str]:
    """The variables of a `.env`."""
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, _is, value in lines if name}


def with_ports(text: str, usual: Mapping[str, str], chosen: Mapping[str, str]) -> str:
    """A text whose addresses on this machine have the chosen ports in place of the usual ones."""
    chosen_of = {port: chosen[name] for name, port in usual.items()}
    return re.sub(
        r"\b(127\.0\.0\.1|localhost):(\d+)\b",
        lambda found: f"{found[1]}:{chosen_of.get(found[2], found[2])}",
        text,
    )


class Stack:
    """The stack of a folder that has of a checkout what it needs; its state begins empty."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        """Lay the folder out; nothing runs yet."""
        self.folder = folder
        self._token = secrets.token_hex(8)
        self._up: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        for part in _PARTS:
            (folder / part).symlink_to(checkout / part)

    @property
    def environment(self) -> Mapping[str, str]:
        """What `.env` says."""
        return read_environment((self.folder / ".env").read_text())

    @property
    def variables(self) -> dict[str, str]:
        """What its commands inherit: nothing that whoever calls has configured for another stack."""
        ours = ("ESPALIER_", "POSTGRES_", "PREFECT_", "MLFLOW_", "PC_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        return {**inherited, _TOKEN: self._token}

    def here(self, text: str) -> str:
        """A text that tells the usual ports, with those of this stack."""
        return with_ports(text, self._usual_ports(), self.environment)

    def choose_ports(self, *, first: int) -> int:
        """Write `.env` with a free block of ports; give the block."""

        def of(block: int) -> Mapping[str, str]:
            (self.folder / ".env").unlink(missing_ok=True)
            self.run("dist/espalier.pex", "env", "--block", str(block))
            return self.environment

        return free_block(of, first=first)

    def up(self) -> None:
        """Start it."""
        with (self.folder / "up.log").open("wb") as log:
            self._up = subprocess.Popen(
                ["process-compose", "up", "-t=false"],
                cwd=self.folder,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def run(self, *argv: str, seconds: float = 120) -> str:
        """What a command says that succeeds."""
        try:
            done = subprocess.run(
                argv,
                cwd=self.folder,
                env=self.variables,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{' '.join(argv)} has not ended within {seconds:.0f} s") from error
        if done.returncode:
            raise Failed(
                f"{' '.join(argv)} ended with exit code {done.returncode}:\n"
                f"{(done.stdout + done.stderr).strip()}"
            )
        return done.stdout

    def states(self) -> Mapping[str, State]:
        """How its processes are."""
        return read_states(self.run("process-compose", "list", "-o", "json"))

    def wait_until_ready(self, *, seconds: float) -> None:
        """Wait until every process is ready."""
        deadline = time.monotonic() + seconds
        while waiting := self._not_ready():
            if time.monotonic() > deadline:
                tails = "\n".join(self.log_of(name) for name in waiting)
                raise Failed(f"not ready within {seconds:.0f} s: {', '.join(waiting)}\n{tails}")
            time.sleep(0.5)

    def kill(self, name: str, *, seconds: float) -> None:
        """Kill a process by SIGKILL; wait until it was started again and all are ready."""
        before = self.states()[name]
        os.kill(before.pid, signal.SIGKILL)
        deadline = time.monotonic() + seconds
        while self.states()[name].restarts == before.restarts:
            if time.monotonic() > deadline:
                raise Failed(f"{name} was killed and not started again\n{self.log_of(name)}")
            time.sleep(0.2)
        self.wait_until_ready(seconds=seconds)

    def down(self, *, seconds: float) -> None:
        """End it as a person does; nothing of it may be left."""
        self.run("process-compose", "down", seconds=seconds)
        assert self._up is not None
        try:
            self._up.wait(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"it still runs {seconds:.0f} s after down") from error
        if left := self.processes():
            raise Failed(f"left behind: {', '.join(map(_told, left))}")

    def processes(self) -> list[int]:
        """Every process that this stack started, and theirs; by what they inherit."""
        mark = f"{_TOKEN}={self._token}\0".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def log_of(self, name: str) -> str:
        """The last lines of a process's log."""
        path = self.folder / ".espalier" / "stack" / "logs" / f"{name}.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join([f"--- {name}", *lines[-_LINES:]])

    def __enter__(self) -> Self:
        """The stack itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Whatever happened, leave nothing running."""
        if self._up is not None and self._up.poll() is None:
            self._up.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._up.wait(timeout=60)
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _usual_ports(self) -> Mapping[str, str]:
        declared = (self.folder / "deploy" / "process-compose.yaml").read_text()
        return dict(re.findall(r"\$\{(\w+_PORT):-(\d+)\}", declared))

    def _not_ready(self) -> list[str]:
        assert self._up is not None
        if self._up.poll() is not None:
            said = (self.folder / "up.log").read_text(errors="replace").splitlines()[-_LINES:]
            raise Failed("\n".join(["process-compose has ended:", *said]))
        try:
            states = self.states()
        except Failed:
            # Its socket comes with its first process.
            return ["process-compose"]
        if lost := [one.name for one in states.values() if one.given_up]:
            tails = "\n".join(self.log_of(name) for name in lost)
            raise Failed(f"given up: {', '.join(lost)}\n{tails}")
        return [one.name for one in states.values() if not one.ready]


def _told(pid: int) -> str:
    with suppress(OSError):
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return f"{pid} ({line.strip()[:200]})"
    return str(pid)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def missing(programs: Sequence[str], which: Callable[[str], str | None]) -> list[str]:
    """Those of the programs that are not on PATH."""
    return [name for name in programs if which(name) is None]
