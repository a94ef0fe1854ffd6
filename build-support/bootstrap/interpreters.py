"""Find the interpreters that this repository runs on, or fetch them with uv."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bootstrap.process import (
    HERE,
    BootstrapError,
    Cache,
    Runner,
    child_env,
    fresh,
    pip,
    read,
    say,
)

PROBE = """\
import platform, sys
if {needs_venv}:
    import ensurepip, venv
    ensurepip.version()
version = "%d.%d %d" % sys.version_info[:3]
print("espalier-probe", platform.python_implementation(), version)
print(sys.executable)
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python version, what it is for, the variable that names one, and what it must have."""

    version: str
    purpose: str
    override: str
    needs_venv: bool
    least_patch: int = 0


PYTHON39 = Interpreter("3.9", "runs Pants", "ESPALIER_PYTHON39", needs_venv=True)


def python311(pants_toml: Path) -> Interpreter:
    """Return what our code runs on: CPython 3.11, from the patch that pants.toml asks for on."""
    match = re.search(r"CPython>=3\.11\.(\d+)", read(pants_toml))
    return Interpreter(
        "3.11",
        "runs our code",
        "ESPALIER_PYTHON311",
        needs_venv=False,
        least_patch=int(match[1]) if match else 0,
    )


def provide(wanted: Interpreter, cache: Cache, run: Runner) -> str:
    """Return the path of an interpreter that answers to ``wanted``; fetch it when there is none.

    An override must be right: it is never replaced by something else. Raises BootstrapError (2).
    """
    given = cache.env.get(wanted.override)
    if given:
        found, why_not = probe(given, wanted, cache.env)
        if found is None:
            raise BootstrapError(
                f"{wanted.override}={given} is not a usable CPython {label(wanted)} ({why_not}): "
                f"correct it, or unset it to search PATH and pyenv",
                2,
            )
        return found
    rejected = []
    for candidate in candidates(wanted.version, cache):
        found, why_not = probe(candidate, wanted, cache.env)
        if found is not None:
            return found
        if Path(candidate).name == f"python{wanted.version}":
            rejected.append(f"{candidate}: {why_not}")
    fetched, why_not = fetch(wanted, cache, run)
    if fetched is not None:
        return fetched
    looked = f"; not usable: {', '.join(rejected)}" if rejected else ""
    raise BootstrapError(
        f"CPython {label(wanted)} ({wanted.purpose}) is missing: not on PATH, not in pyenv{looked}; "
        f"uv could not fetch it ({why_not}): install it (for example: "
        f"pyenv install {wanted.version}) or set {wanted.override}",
        2,
    )


def label(wanted: Interpreter) -> str:
    """Return the version as the user should read it."""
    return f"{wanted.version}.{wanted.least_patch}+" if wanted.least_patch else wanted.version


def candidates(version: str, cache: Cache) -> Iterator[str]:
    """Yield paths that may be CPython ``version``: PATH, pyenv, fetched before, plain python3."""
    folders = [Path(name) for name in cache.env.get("PATH", "").split(os.pathsep)]
    folders = [folder for folder in folders if folder.is_absolute()]
    exact = f"python{version}"

    def newest_first(folder: Path, pattern: str) -> list[Path]:
        def numbers(path: Path) -> list[int]:
            return [int(n) for n in re.findall(r"\d+", str(path.relative_to(folder)))]

        return sorted(folder.glob(f"{pattern}/bin/{exact}"), key=numbers, reverse=True)

    pyenv = Path(cache.env.get("PYENV_ROOT") or Path(cache.env.get("HOME", "/")) / ".pyenv")
    named = [folder / exact for folder in folders]
    named += newest_first(pyenv / "versions", f"{version}.*")
    named += newest_first(cache.pythons, f"cpython-{version}.*")
    named += [folder / name for name in ("python3", "python") for folder in folders]
    return (str(path) for path in named if path.is_file() and os.access(path, os.X_OK))


def probe(path: str, wanted: Interpreter, env: Mapping[str, str]) -> tuple[str | None, str]:
    """Run ``path``; return the real interpreter behind it, or None and the reason.

    A pyenv shim exists for every version that pyenv ever had and fails when it is run, so only the
    answer of a running interpreter counts.
    """
    try:
        done = subprocess.run(
            [path, "-I", "-c", PROBE.format(needs_venv=wanted.needs_venv)],
            check=False,
            env=child_env(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, one_line(error)
    if done.returncode != 0:
        return None, one_line((done.stderr.split("\n\n")[0]) or f"exit code {done.returncode}")
    answer = re.fullmatch(r"espalier-probe (\w+) (\d+\.\d+) (\d+)\n(.+)\n", done.stdout)
    if answer is None:
        return None, f"it answers {one_line(done.stdout)!r}"
    implementation, version, patch, executable = answer.groups()
    if (implementation, version) != ("CPython", wanted.version) or int(patch) < wanted.least_patch:
        return None, f"it is {implementation} {version}.{patch}"
    return executable, ""


def fetch(wanted: Interpreter, cache: Cache, run: Runner) -> tuple[str | None, str]:
    """Let uv install ``wanted`` into the cache; return its path, or None and the reason."""
    say(f"CPython {label(wanted)} ({wanted.purpose}) is not here; trying to fetch it with uv")
    uv = cache.env.get("ESPALIER_UV") or install_uv(cache, run)
    if uv is None:
        return None, f"uv could not be installed, see {run.log}"
    env = child_env(cache.env, UV_PYTHON_INSTALL_DIR=str(cache.pythons), UV_PYTHON_INSTALL_BIN="0")
    if not run([uv, "python", "install", wanted.version], env):
        return None, f"see {run.log}"
    for path in cache.pythons.glob(f"cpython-{wanted.version}*/bin/python{wanted.version}"):
        found, _ = probe(str(path), wanted, cache.env)
        if found is not None:
            return found, ""
    return None, f"it left no usable python{wanted.version} in {cache.pythons}"


def install_uv(cache: Cache, run: Runner) -> str | None:
    """Install the pinned uv into the cache with the Python that runs this; None if that fails."""
    pins = HERE / "uv.txt"
    entry = cache.folder / f"uv-{hashlib.sha256(pins.read_bytes()).hexdigest()[:16]}"
    if not (entry / "bin" / "uv").is_file():
        staging = cache.staging.with_name(entry.name)
        fresh(staging)
        env = child_env(cache.env)
        made = run([sys.executable, "-m", "venv", staging], env)
        if not (made and run(pip(staging, "install", pins), env)):
            return None
        staging.rename(entry)
    return str(entry / "bin" / "uv")


def one_line(text: object) -> str:
    """Return ``text`` on one line, cut to what a message can hold."""
    return " ".join(str(text).split())[:200]
