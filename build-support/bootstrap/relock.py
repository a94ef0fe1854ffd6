"""Renew the hash-pinned lists of the bootstrap: pants.txt, pex.txt and uv.txt.

    build-support/bootstrap/relock [--pex VERSION] [--uv VERSION]

Pants' version is the one in pants.toml; pex and uv keep theirs unless a new one is given. The pinned
pex resolves, from pip's index; the lists keep names, versions and hashes and never name the index, so
they work behind a mirror. Needs a CPython 3.9 (see ``./pants``). Every requirement must have a wheel
for each of the four platforms, or nothing is written.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bootstrap.interpreters import PYTHON39, provide
from bootstrap.process import (
    HERE,
    BootstrapError,
    Cache,
    Runner,
    locked,
    pinned,
    pip,
    read,
    say,
    write_atomically,
)

# Platform tags of wheels, for the platforms on which ./pants runs.
PLATFORMS = {
    "Linux x86_64": r"any|manylinux\w*_x86_64",
    "Linux aarch64": r"any|manylinux\w*_aarch64",
    "macOS x86_64": r"any|macosx_\w*_(x86_64|universal2)",
    "macOS arm64": r"any|macosx_\w*_(arm64|universal2)",
}

# Pants 2.17 asks for versions that have no wheels for Linux aarch64 or macOS arm64 and would need a
# compiler there. It uses psutil.Process and ijson.backends.python alone, which are the same in these.
OVERRIDES = ("psutil==6.1.1", "ijson==3.2.3")


def main(argv: Sequence[str]) -> int:
    """Write the three lists and return 0; or 1, a platform has no wheel, or 2 or 3 as ./pants."""
    parser = argparse.ArgumentParser(prog="relock", description="Renew the bootstrap's pins.")
    parser.add_argument("--pex", default=pinned("pex", HERE / "pex.txt"), help="version of pex")
    parser.add_argument("--uv", default=pinned("uv", HERE / "uv.txt"), help="version of uv")
    args = parser.parse_args(argv)
    pants_toml = HERE.parent.parent / "pants.toml"
    try:
        lists = renew(pants_toml, args.pex, args.uv)
    except BootstrapError as error:
        say(str(error))
        return error.exit_code
    except subprocess.CalledProcessError as error:
        say(f"relock: {error.cmd[0]} failed, its output is above; nothing was written")
        return 3
    for name, text in lists.items():
        write_atomically(HERE / f"{name}.txt", text)
    return 0


def renew(pants_toml: Path, pex: str, uv: str) -> dict[str, str]:
    """Return the text of each list by its name.

    Raises BootstrapError (1: no wheel, 2: no pants_version or CPython 3.9), CalledProcessError.
    """
    wanted = re.search(r'^pants_version *= *"([^"]+)"', read(pants_toml), re.MULTILINE)
    if wanted is None:
        raise BootstrapError(f"{pants_toml} has no pants_version: add it", 2)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        with locked(work / "lock") as lock:
            cache = Cache(work, "relock", os.environ)
            python39 = provide(PYTHON39, cache, Runner(cache.log, lock))
        pex3 = install_pex(work / "venv", pex)
        return {
            "pants": resolve(pex3, python39, f"pantsbuild.pants=={wanted[1]}", OVERRIDES),
            "pex": resolve(pex3, python39, f"pex=={pex}"),
            "uv": resolve(pex3, python39, f"uv=={uv}"),
        }


def install_pex(venv: Path, version: str) -> Path:
    """Install pex into ``venv``, checked by its hash when it is the pinned one; return pex3."""
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    argv = [venv / "bin" / "python", "-m", "pip", "install", f"pex=={version}"]
    if version == pinned("pex", HERE / "pex.txt"):
        argv = pip(venv, "install", HERE / "pex.txt")
    subprocess.run([str(part) for part in [*argv, "--quiet"]], check=True)
    return venv / "bin" / "pex3"


def resolve(pex3: Path, python39: str, requirement: str, overrides: Sequence[str] = ()) -> str:
    """Resolve ``requirement`` for CPython 3.9 on all platforms; return the text of its list.

    Raises CalledProcessError when pex fails, BootstrapError (1) when a platform has no wheel.
    """
    with tempfile.TemporaryDirectory() as temporary:
        lock = Path(temporary) / "lock.json"
        command = [str(pex3), "lock", "create", requirement, "--output", str(lock)]
        command += ["--style", "universal", "--target-system", "linux", "--target-system", "mac"]
        command += ["--interpreter-constraint", "CPython==3.9.*", "--no-build"]
        command += ["--python-path", str(Path(python39).parent)]
        command += [part for override in overrides for part in ("--override", override)]
        subprocess.run(command, check=True)
        content = json.loads(read(lock))
    header = "# Written by build-support/bootstrap/relock from: " + requirement
    header += "".join(f", {override} in place of what it asks for" for override in overrides)
    return header + "\n" + "".join(sorted(entries(content)))


def entries(lock: Any) -> Iterator[str]:
    """Lines of a requirements list, one text per requirement, from pex's lock."""
    for requirement in lock["locked_resolves"][0]["locked_requirements"]:
        pin = f"{requirement['project_name']}=={requirement['version']}"
        hashes = set()
        missing = set(PLATFORMS)
        for artifact in requirement["artifacts"]:
            # A wheel's name ends in -PLATFORM[.PLATFORM...].whl
            tags = artifact["url"].rsplit("/", 1)[-1][: -len(".whl")].rsplit("-", 1)[-1].split(".")
            for platform, pattern in PLATFORMS.items():
                if any(re.fullmatch(pattern, tag) for tag in tags):
                    missing.discard(platform)
                    hashes.add(f"{artifact['algorithm']}:{artifact['hash']}")
        if missing:
            raise BootstrapError(
                f"{pin} has no wheel for {', '.join(sorted(missing))}: add one to OVERRIDES", 1
            )
        yield " \\\n    ".join([pin, *(f"--hash={digest}" for digest in sorted(hashes))]) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
