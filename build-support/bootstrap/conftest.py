"""A scratch repository in which ./pants is run, with stand-ins for what would be downloaded."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PINS = Path("build-support/bootstrap")
PYTHON39, PYTHON311 = "CPython 3.9 18", "CPython 3.11 7"

# $answer, $calls and $gates are filled in; a gate holds the step it names until its file is there.
STAND_IN = r"""#!/bin/bash
echo "$0 $*" >>"$calls"
hold() { [ ! -e "$gates/$1.hold" ] || until [ -e "$gates/$1.go" ]; do sleep 0.02; done; }
after() { local want=$1; shift; while [ "$1" != "$want" ]; do shift; done; echo "$2"; }
case "$*" in
  *espalier-probe*) printf 'espalier-probe %s\n%s\n' "$answer" "$0" ;;
  "-m venv "*)
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && hold venv ;;
  "-m pip install "*) hold install ;;
  "-m pip download "*) mkdir -p "$(after --dest "$@")" && hold download ;;
  "-m pex "*) hold pex; echo "built by $0" >"$(after --output-file "$@")" ;;
  "-c import pants"*) ;;
  */bin/pants*) shift; pwd; echo "args: $*"; env ;;
  *) exit 1 ;;
esac
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def wait_until(condition: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit, f"waited 60 s for: {what}"
        time.sleep(0.02)


@dataclass
class Sandbox:
    """A scratch repository with its own PATH, pyenv and cache, and the processes started in it."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.repo = self.folder / "my repo"
        self.bin, self.cache = self.folder / "bin", self.folder / "cache"
        self.driver_pid = self.folder / "driver.pid"
        self.gates, self.calls_file = self.folder / "gates", self.folder / "calls"
        for folder in (self.bin, self.gates, self.repo / PINS):
            folder.mkdir(parents=True)
        shutil.copy("pants", self.repo)
        shutil.copy("pants.toml", self.repo)
        for path in PINS.iterdir():
            if path.suffix in {".txt", ".py"}:
                shutil.copy(path, self.repo / PINS)
        tools = ["bash", "cat", "cp", "env", "mkdir", "readlink", "sleep", "uname"]
        tools.append("sha256sum" if shutil.which("sha256sum") else "shasum")
        for tool in tools:
            (self.bin / tool).symlink_to(shutil.which(tool) or pytest.fail(f"no {tool}"))
        # Runs the bootstrap, and is itself none of the interpreters that are looked for.
        executable(
            self.bin / "python3",
            f"""#!/bin/bash
case "$*" in
  *espalier-probe*) exit 1 ;;
  *bootstrap.main*) echo $$ >"{self.driver_pid}" ;;
esac
exec "{sys.executable}" "$@"
""",
        )

    def python(self, path: Path, answer: str) -> Path:
        text = STAND_IN.replace("$answer", answer)
        text = text.replace("$calls", str(self.calls_file)).replace("$gates", str(self.gates))
        return executable(path, text)

    def on_path(self) -> Sandbox:
        self.python(self.bin / "python3.9", PYTHON39)
        self.python(self.bin / "python3.11", PYTHON311)
        return self

    def start(
        self, *args: str, script: Path | None = None, cwd: Path | None = None, **env: str
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [script or self.repo / "pants", *args],
            cwd=cwd or self.folder,
            env={
                "PATH": str(self.bin),
                "HOME": str(self.folder / "home"),
                "PANTS_SETUP_CACHE": str(self.cache),
                "ESPALIER_UV": str(self.bin / "no-uv"),
                **env,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(
        self, *args: str, script: Path | None = None, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*args, script=script, cwd=cwd, **env)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def calls(self, part: str = "") -> list[str]:
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        return [line for line in lines if part in line]

    def entries(self) -> list[Path]:
        return sorted(self.cache.glob("pants-*[0-9a-f]"))

    def hold(self, step: str) -> None:
        (self.gates / f"{step}.hold").touch()

    def release(self, step: str) -> None:
        (self.gates / f"{step}.go").touch()

    def end(self) -> None:
        for step in ("venv", "install", "download", "pex"):
            self.release(step)
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            if process.stdout and not process.stdout.closed:
                process.communicate()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path)
    yield sandbox
    sandbox.end()
