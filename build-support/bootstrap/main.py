"""Prepare what ./pants runs; started by it when the cache has no entry for the current pins.

Everything is built in a staging folder of the cache and renamed into place, under a lock: an
interrupted bootstrap leaves nothing that looks complete, and two that start together build once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bootstrap.build import PANTS_PINS, build, complete
from bootstrap.interpreters import PYTHON39, provide, python311
from bootstrap.process import (
    BootstrapError,
    Cache,
    Runner,
    locked,
    pinned,
    read,
    say,
    write_atomically,
)


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Bootstrap into ``--cache``/``--key`` for the repository ``--root``; return the exit code."""
    parser = argparse.ArgumentParser(prog="bootstrap", description="Prepare what ./pants runs.")
    parser.add_argument("--root", type=Path, required=True, help="folder of pants.toml")
    parser.add_argument("--cache", type=Path, required=True, help="cache folder, absolute")
    parser.add_argument("--key", required=True, help="name of the cache entry")
    parser.add_argument("--asked", required=True, help="what the found CPython 3.11 answers to")
    args = parser.parse_args(argv)
    try:
        bootstrap(args.root, Cache(args.cache, args.key, env), args.asked)
    except BootstrapError as error:
        say(str(error))
        return error.exit_code
    except OSError as error:
        say(f"cannot use the cache: {error}: set PANTS_SETUP_CACHE to a folder for writing")
        return 2
    except KeyboardInterrupt:
        say("bootstrap interrupted; the next start begins it again")
        return 130
    return 0


def bootstrap(root: Path, cache: Cache, asked: str) -> None:
    """Make the cache entry and the record of the CPython 3.11, where they are missing.

    Raises BootstrapError when an interpreter, the package index or a pin stands in the way,
    OSError when the cache cannot be written.
    """
    check_pins(root / "pants.toml")
    cache.folder.mkdir(parents=True, exist_ok=True)
    with locked(cache.folder / "lock") as lock:
        run = Runner(cache.log, lock)
        runs_pants = provide(PYTHON39, cache, run)
        runs_our_code = provide(python311(root / "pants.toml"), cache, run)
        if not complete(cache.entry):
            build(runs_pants, cache, run)
        write_atomically(cache.folder / "python311", f"{asked}\n{runs_our_code}\n")


def check_pins(pants_toml: Path) -> None:
    """Raise BootstrapError (2) unless pants.txt pins the version that pants.toml names."""
    wanted = re.search(r'^pants_version *= *"([^"]+)"', read(pants_toml), re.MULTILINE)
    pin = pinned("pantsbuild-pants", PANTS_PINS)
    if wanted is None or wanted[1] != pin:
        raise BootstrapError(
            f"{pants_toml} asks for Pants {wanted and wanted[1]}, {PANTS_PINS} pins {pin}: run "
            f"build-support/bootstrap/relock",
            2,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
