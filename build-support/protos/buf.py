"""Runs buf, the protobuf linter and compatibility checker, out of the buf-bin package."""

from __future__ import annotations

import subprocess
import sysconfig
import tempfile
from pathlib import Path

# Without source info a changed comment is no changed contract.
BUILD = ("build", "--exclude-source-info", "--output")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run buf in the folder that holds buf.yaml, offline and apart from the user's own set-up.

    Returns the ended process with its output as text: code 0 when all is well, 100 when a rule is
    broken or a file does not compile, 1 when buf cannot work at all.

    Raises:
        FileNotFoundError: this environment has no buf-bin.
    """
    binary = Path(sysconfig.get_path("scripts")) / "buf"
    with tempfile.TemporaryDirectory() as cache:
        return subprocess.run(
            [binary, *arguments],
            cwd=folder,
            env={"BUF_CACHE_DIR": cache},
            capture_output=True,
            text=True,
            check=False,
        )
