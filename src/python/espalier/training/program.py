"""Which program this is: the commit it was made from, its lock, and its PEX."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"
LOCK = "3rdparty/python/default.lock"
# Where a checkout has the code that runs.
_SOURCES = "src/python"


@dataclass(frozen=True, kw_only=True)
class Program:
    """The running program. What cannot be told is "unknown".

    `git_dirty` is "true" when the checkout has changes or files that its commit lacks. `lock_digest`
    is the sha256 of the lock file in a checkout; in a PEX that of its distributions' names and
    digests, which `lock_source` says. `code_hash` is the PEX's own digest of the code in it.
    """

    git_commit: str = UNKNOWN
    git_dirty: str = UNKNOWN
    lock_digest: str = UNKNOWN
    lock_source: str = UNKNOWN
    pex: str = ""
    pex_sha256: str = ""
    code_hash: str = ""


def identify(
    *,
    pex: Path | None = None,
    baked_commit: str = "",
    folder: Path,
    package: Path | None = None,
) -> Program:
    """Ask the checkout, the PEX and whoever built it.

    A checkout counts when the code that runs is byte for byte the one in it: that around this
    module, or the one around `folder`, where `./pants run` and a PEX are started.

    Args:
        pex: The PEX that runs, if one does.
        baked_commit: The commit that the build left, with "-dirty" at its end where it was so; it
            stands in where no checkout tells.
        folder: The working directory.
        package: The package by whose modules the code that runs is known; default: this one.
    """
    checkout = _checkout(package or Path(__file__).resolve().parent, folder)
    commit, dirty = _git(checkout) if checkout else (UNKNOWN, UNKNOWN)
    if commit == UNKNOWN and baked_commit:
        commit = baked_commit.removesuffix("-dirty")
        dirty = str(baked_commit.endswith("-dirty")).lower()
    info = _pex_info(pex) if pex else None
    if pex is not None and info is not None:
        return Program(
            git_commit=commit,
            git_dirty=dirty,
            lock_digest=_digest(json.dumps(info.get("distributions", {}), sort_keys=True).encode()),
            lock_source="PEX-INFO",
            pex=pex.name,
            pex_sha256=_file_digest(pex),
            code_hash=str(info.get("code_hash", "")),
        )
    if checkout is not None and (checkout / LOCK).is_file():
        return Program(
            git_commit=commit,
            git_dirty=dirty,
            lock_digest=_file_digest(checkout / LOCK),
            lock_source=LOCK,
        )
    return Program(git_commit=commit, git_dirty=dirty)


def _checkout(package: Path, folder: Path) -> Path | None:
    """The root of the git checkout that holds the code that runs."""
    for place in (package, folder):
        top = _run_git(place, "rev-parse", "--show-toplevel")
        if top and _same_code(package, Path(top) / _SOURCES / "espalier" / package.name):
            return Path(top)
    return None


def _same_code(running: Path, stored: Path) -> bool:
    """Whether the modules of the running package are those of a checkout."""
    if running == stored.resolve():
        return True
    modules = [path for path in running.glob("*.py") if not path.name.endswith("_test.py")]
    try:
        return all(path.read_bytes() == (stored / path.name).read_bytes() for path in modules)
    except OSError:
        return False


def _git(checkout: Path) -> tuple[str, str]:
    commit = _run_git(checkout, "rev-parse", "HEAD")
    status = _run_git(checkout, "status", "--porcelain")
    dirty = UNKNOWN if status is None else str(bool(status)).lower()
    return commit or UNKNOWN, dirty


def _run_git(folder: Path, *arguments: str) -> str | None:
    """What git says; None when there is no git, no checkout, or one of another user."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _pex_info(pex: Path) -> dict[str, Any] | None:
    """The PEX's own description of itself; None when that is none."""
    try:
        if pex.is_dir():
            text = (pex / "PEX-INFO").read_text(encoding="utf-8")
        else:
            with zipfile.ZipFile(pex) as archive:
                text = archive.read("PEX-INFO").decode()
        found = json.loads(text)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    return found if isinstance(found, dict) else None


def _file_digest(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
