"""What every step of the bootstrap shares: its cache, its errors, its child processes."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent


class BootstrapError(Exception):
    """A bootstrap that cannot go on: one line for the user and the exit code of ``./pants``."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Cache:
    """The cache folder, the name of the entry to build in it, and the caller's environment."""

    folder: Path
    key: str
    env: Mapping[str, str]

    @property
    def entry(self) -> Path:
        """The finished entry; it appears by a rename, so it is there as a whole or not at all."""
        return self.folder / self.key

    @property
    def staging(self) -> Path:
        """Where the entry is built; only whoever holds the lock may touch it."""
        return self.folder / ".staging" / self.key

    @property
    def pythons(self) -> Path:
        """Interpreters that uv fetched."""
        return self.folder / "python"

    @property
    def log(self) -> Path:
        """Output of the last bootstrap's child processes."""
        return self.folder / f"{self.key}.log"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[IO[str]]:
    """Hold an exclusive lock on ``path``; the kernel drops it when its last holder dies.

    Child processes inherit the descriptor (see Runner), so a pip that outlives a killed bootstrap
    keeps the next one from building over it.
    """
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another bootstrap in the same cache to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


class Runner:
    """Runs child processes that hold the bootstrap's lock and write to its log."""

    def __init__(self, log: Path, lock: IO[str]) -> None:
        self.log = log
        self._lock = lock
        self._mode = "w"

    def __call__(self, argv: Sequence[object], env: Mapping[str, str]) -> bool:
        """Run ``argv`` and return whether it ended with 0."""
        with self.log.open(self._mode, encoding="utf-8") as log:
            self._mode = "a"
            print("$", *argv, file=log, flush=True)
            try:
                done = subprocess.run(
                    [str(arg) for arg in argv],
                    check=False,
                    env=dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[self._lock.fileno()],
                )
            except OSError as error:
                print(error, file=log)
                return False
        return done.returncode == 0

    def output(self) -> str:
        """Everything the child processes of this bootstrap have written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def child_env(env: Mapping[str, str], **more: str) -> dict[str, str]:
    """Return the caller's environment without what would lead an install out of our venv."""
    dropped = {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "__PYVENV_LAUNCHER__"}
    kept = {
        name: value
        for name, value in env.items()
        if name not in dropped and not name.startswith(("PYTHON", "PEX_"))
    }
    return {**kept, "PIP_USER": "0", **more}


def pip(venv: Path, command: str, pins: Path) -> list[object]:
    """Return the pip command that takes the wheels ``pins`` names, each checked by its hash."""
    argv: list[object] = [venv / "bin" / "python", "-m", "pip", command]
    argv += ["--no-input", "--disable-pip-version-check", "--require-hashes", "--no-deps"]
    return [*argv, "--only-binary", ":all:", "--requirement", pins]


def pinned(name: str, pins: Path) -> str | None:
    """Return the version of ``name`` in the list ``pins``."""
    match = re.search(rf"^{re.escape(name)}==(\S+)", read(pins), re.MULTILINE)
    return match[1] if match else None


def fresh(folder: Path) -> None:
    """Make ``folder`` empty; under the lock, what it held was left by a killed bootstrap."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def read(path: Path) -> str:
    """Return the text of ``path``."""
    return path.read_text(encoding="utf-8")


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` in one step: a reader sees the old text or the new."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def say(line: str) -> None:
    """Tell the user: standard error, one line, by the launcher's name."""
    print(f"pants: {line}", file=sys.stderr, flush=True)
