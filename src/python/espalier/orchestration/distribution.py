"""PEXes on their way to workers: a store that is addressed by digest, and a cache on each host.

In the store a program lies at `<sha256>/<name>`, so a newer one never takes the place of one that a
deployment names. A worker's host keeps the same layout.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from espalier.errors import BadData, ConfigurationError, DependencyUnreachable, EspalierError

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Whether a text is a sha256 as we write it."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(path: Path) -> str:
    """The sha256 of a file.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror or error}", fix="build it: ./pants package ::"
        ) from error


def recorded(folder: Path) -> dict[str, str]:
    """The digests that `SHA256SUMS` of a folder records, by file name; none without that file.

    Raises:
        ConfigurationError: a line of it is no line of sha256sum.
    """
    path = folder / SUMS
    if not path.exists():
        return {}
    found = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigurationError(
                f"{path} line {number} is not a line of sha256sum",
                fix=f"write it anew: cd {folder} && sha256sum *.pex > {SUMS}",
            )
        found[match[2]] = match[1]
    return found


def record(folder: Path, digests: Mapping[str, str]) -> None:
    """Write `SHA256SUMS` of a folder: what is recorded already, and these."""
    lines = [
        f"{digest}  {name}\n" for name, digest in sorted({**recorded(folder), **digests}.items())
    ]
    making = folder / f".{SUMS}.{os.getpid()}"
    making.write_text("".join(lines))
    making.replace(folder / SUMS)


def address(store: str, digest: str, name: str) -> str:
    """Where a store has a program; a folder's path is made absolute."""
    if "://" not in store:
        store = str(Path(store).expanduser().absolute())
    return f"{store.rstrip('/')}/{digest}/{name}"


def publish(path: Path, url: str) -> bool:
    """Put a program into the store, unless it is there; whether it was put.

    Raises:
        DependencyUnreachable: the store does not take it.
        ConfigurationError: no library for such a store is here.
    """
    files, target = _open(url)
    with _reached(url):
        if files.exists(target) and files.size(target) == path.stat().st_size:
            return False
        files.makedirs(target.rpartition("/")[0], exist_ok=True)
        if "file" in files.protocol:
            # Whole or not there, for who fetches meanwhile.
            making = f"{target}.{os.getpid()}"
            files.put_file(str(path), making)
            files.mv(making, target)
        else:
            files.put_file(str(path), target)
    return True


def fetch(url: str, digest: str, cache: Path) -> Path:
    """A program of the store on this host, whose digest was compared.

    It is downloaded once, also when several ask at a time, and appears whole or not at all. Its
    digest is compared then, and again when the file is another one, or its size or times are. What
    was changed in the cache is downloaded again.

    Args:
        url: Where it is, by `address`.
        digest: The sha256 that it must have.
        cache: This host's folder of programs.

    Raises:
        BadData: what is at `url` has another digest; nothing of it is kept.
        DependencyUnreachable: the store does not give it.
        ConfigurationError: no library for such a store is here, or the cache cannot be written.
    """
    target = cache / digest / Path(urlsplit(url).path).name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            seen = target.parent / ".seen"
            if not _is_as_seen(target, seen):
                if not (target.is_file() and digest_of(target) == digest):
                    _download(url, digest, target)
                seen.write_text(_identity(target))
    except OSError as error:
        raise ConfigurationError(
            f"the cache of programs {cache}: {error.strerror or error}",
            fix="set ESPALIER_PEX_CACHE to a folder that can be written",
        ) from error
    return target


def _is_as_seen(target: Path, seen: Path) -> bool:
    """Whether the file is the very one whose digest was compared, and not written to since."""
    try:
        return seen.read_text() == _identity(target)
    except FileNotFoundError:
        return False


def _identity(path: Path) -> str:
    """What changes when a file is replaced or written to; nobody but root sets its ctime."""
    found = path.stat()
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _download(url: str, digest: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as folder:
        making = Path(folder) / target.name
        files, source = _open(url)
        with _reached(url), files.open(source, "rb") as stream, making.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
        if (found := digest_of(making)) != digest:
            raise BadData(
                f"{url} has the sha256 {found[:12]}..., and the deployment wants {digest[:12]}...",
                fix="deploy again, from the PEX that was tested",
            )
        making.chmod(0o755)
        making.replace(target)


def _open(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # a tenth of a second; a program in the cache needs it not

    try:
        files, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigurationError(
            f"{url}: {error}", fix="use a folder, or a URL whose fsspec library is installed"
        ) from error
    return files, str(path)


@contextmanager
def _reached(url: str) -> Iterator[None]:
    try:
        yield
    except EspalierError:
        raise
    except Exception as error:
        # Each of fsspec's libraries has errors of its own.
        raise DependencyUnreachable(
            f"{url}: {str(error) or type(error).__name__}",
            fix="check the store of PEXes, and what this host may do there",
        ) from error
