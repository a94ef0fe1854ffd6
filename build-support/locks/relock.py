"""Renews the locks in 3rdparty/python: names, versions and hashes, and no index's address.

    python3 build-support/locks/relock.py [NAME...]

Each lock is resolved by uv for CPython 3.11 on Linux and macOS, x86_64 and aarch64 alike, from the
index that pip and uv are set up for. uv itself is installed from a hash-pinned list.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "3rdparty" / "python"
LOCKS = {
    "default": ("requirements.txt", "test-requirements.txt"),
    "pytest": ("pytest.txt",),
    "mypy": ("mypy.txt",),
    "ruff": ("ruff.txt",),
    "protoc": ("protoc.txt",),
    "docs": ("docs-requirements.txt",),
}
_ENVIRONMENT = (
    "python_full_version >= '3.11.3' and python_full_version < '3.12' and "
    "platform_python_implementation == 'CPython' and "
    "(sys_platform == 'darwin' or sys_platform == 'linux')"
)
_PROJECT = f"""
[project]
name = "locked"
version = "0"
requires-python = ">=3.11.3,<3.12"
[tool.uv]
environments = ["{_ENVIRONMENT}"]
"""


def inputs_digest(sources: tuple[str, ...]) -> str:
    """The sha256 of the requirements that a lock is made of."""
    return hashlib.sha256(b"\0".join((FOLDER / s).read_bytes() for s in sources)).hexdigest()


def without_common_marker(lock: str) -> str:
    """The lock without the environment marker that most of its lines share.

    uv repeats the environments it was asked for on every line; only a package that some of them
    lack keeps its marker.
    """
    marker = re.compile(r"^(\S+==\S+) ; (.*?)( \\)?$", re.MULTILINE)
    counts = Counter(found[2] for found in marker.finditer(lock))
    if not counts:
        return lock
    common = set(counts.most_common(1)[0][0].split(" and "))

    def shorten(found: re.Match[str]) -> str:
        left = [part for part in found[2].split(" and ") if part not in common]
        # CPython is what we lock for, so a marker that only excludes PyPy says nothing.
        left = [part for part in left if not re.search("!= 'pypy'", part, re.IGNORECASE)]
        return found[1] + (" ; " + " and ".join(left) if left else "") + (found[3] or "")

    return marker.sub(shorten, lock)


def main(names: list[str]) -> int:
    """Renew the named locks, or all of them."""
    unknown = [name for name in names if name not in LOCKS]
    if unknown:
        print(f"relock: no lock {unknown[0]!r}; there are {', '.join(LOCKS)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = folder / "uv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder / "uv"], check=True)
        pins = ROOT / "build-support" / "bootstrap" / "uv.txt"
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", pins], check=True
        )
        for name in names or LOCKS:
            project = folder / name
            project.mkdir()
            (project / "pyproject.toml").write_text(_PROJECT)
            sources = [str(FOLDER / source) for source in LOCKS[name]]
            command = [
                *(str(folder / "uv" / "bin" / "uv"), "pip", "compile", "--universal", "--quiet"),
                *("--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"),
                *("--no-emit-index-url", "--no-emit-find-links", "--output-file", "lock", *sources),
            ]
            subprocess.run(command, cwd=project, check=True)
            lock = without_common_marker((project / "lock").read_text())
            header = f"# made by build-support/locks/relock.py of {inputs_digest(LOCKS[name])}\n"
            (FOLDER / f"{name}.lock").write_text(header + lock)
            print(f"relock: {name}: {lock.count('==')} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
