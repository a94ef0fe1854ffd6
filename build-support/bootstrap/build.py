"""Build a cache entry: a venv with Pants, and the pex CLI that Pants would otherwise download.

The entry's name holds a digest of this file and of the lists it installs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import NoReturn

from bootstrap.process import (
    HERE,
    BootstrapError,
    Cache,
    Runner,
    child_env,
    fresh,
    pinned,
    pip,
    say,
)

PANTS_PINS = HERE / "pants.txt"
PEX_PINS = HERE / "pex.txt"

# What pip writes when its index does not answer, answers with an error, or has nothing.
UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Max retries"
    r"|ConnectionError|Name or service not known|Temporary failure in name resolution"
    r"|Connection refused|No matching distribution found|Could not fetch URL|HTTPError"
    r"|HTTP error|Client Error|Server Error"
)


def complete(entry: Path) -> bool:
    """Whether ``entry`` can run Pants; its base interpreter may have gone since it was built."""
    python = entry / "venv" / "bin" / "python"
    return (entry / "pex.digest").is_file() and os.access(python, os.X_OK)


def build(python39: str, cache: Cache, run: Runner) -> None:
    """Build the entry in the staging folder and rename it into place.

    Raises BootstrapError: 2 when ``python39`` cannot make a venv or a list pins nothing, 3 when
    the index cannot be reached, 4 when a hash differs, 1 when another step fails.
    """
    begun = time.monotonic()
    pants = f"Pants {pinned('pantsbuild-pants', PANTS_PINS)}"
    say(f"bootstrapping {pants} (once, about 30 s)")
    fresh(cache.staging)
    try:
        venv = cache.staging / "venv"
        install_pants(python39, venv, cache, run)
        build_pex_cli(venv, cache, run)
        discard(cache.entry)
        cache.staging.rename(cache.entry)
    finally:
        shutil.rmtree(cache.staging, ignore_errors=True)
    say(f"{pants} is ready after {time.monotonic() - begun:.0f} s")


def install_pants(python39: str, venv: Path, cache: Cache, run: Runner) -> None:
    """Make ``venv`` and install the pinned Pants into it; raise BootstrapError as build does."""
    env = child_env(cache.env)
    if not run([python39, "-m", "venv", venv], env):
        raise BootstrapError(
            f"{python39} cannot make a venv: see {run.log}; install its venv and ensurepip "
            f"modules, or set ESPALIER_PYTHON39 to another CPython 3.9",
            2,
        )
    say("installing Pants from the package index")
    if not run(pip(venv, "install", PANTS_PINS), env):
        explain(run)
    if not run([venv / "bin" / "python", "-c", "import pants.engine.internals.native_engine"], env):
        raise BootstrapError(f"Pants does not start on {python39}: see {run.log}", 1)


def build_pex_cli(venv: Path, cache: Cache, run: Runner) -> None:
    """Write ``pex`` and ``pex.digest`` (sha256|size) into the staging folder.

    Pants' own, older pex builds the new one: so built, the same pins give the same bytes.
    """
    say("building the pex CLI")
    version = pinned("pex", PEX_PINS)
    if version is None:
        raise BootstrapError(f"{PEX_PINS} pins no pex: run build-support/bootstrap/relock", 2)
    wheels, work, pex = (cache.staging / name for name in ("wheels", "work", "pex"))
    if not run([*pip(venv, "download", PEX_PINS), "--dest", wheels], child_env(cache.env)):
        explain(run)
    work.mkdir()
    argv = [venv / "bin" / "python", "-m", "pex", f"pex=={version}", "--no-index", "-f", wheels]
    argv += ["--console-script", "pex", "--venv", "--output-file", pex]
    if not run(argv, child_env(cache.env, PEX_ROOT=str(work), TMPDIR=str(work))):
        raise BootstrapError(f"the pex CLI cannot be built: see {run.log}", 1)
    shutil.rmtree(wheels)
    shutil.rmtree(work)
    content = pex.read_bytes()
    digest = f"{hashlib.sha256(content).hexdigest()}|{len(content)}\n"
    (cache.staging / "pex.digest").write_text(digest, encoding="utf-8")


def discard(entry: Path) -> None:
    """Remove an incomplete entry: first from its name, in one step, then from the disk."""
    if entry.exists():
        grave = entry.parent / ".staging" / f"{entry.name}.discarded"
        shutil.rmtree(grave, ignore_errors=True)
        entry.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)


def explain(run: Runner) -> NoReturn:
    """Raise the BootstrapError that tells why pip failed, from its output."""
    output = run.output()
    if "DO NOT MATCH THE HASHES" in output:
        raise BootstrapError(
            f"a package differs from its pinned hash and was not installed: see {run.log}; check "
            f"the index (pip config list) before renewing the pins",
            4,
        )
    if UNREACHABLE.search(output):
        raise BootstrapError(
            f"pip cannot get the pinned packages from its index: see {run.log}; check the "
            f"network, or name a mirror (PIP_INDEX_URL) or a proxy (HTTPS_PROXY)",
            3,
        )
    raise BootstrapError(f"pip failed: see {run.log}", 1)
