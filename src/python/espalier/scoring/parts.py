"""The Parquet files of a run: each appears whole or not at all, and says what it belongs to.

The names of unfinished files begin with a dot and that of the closing file with an underscore;
Parquet readers skip both.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from espalier.errors import BadData, CheckRefused, ConfigurationError, UsageError

SUCCESS = "_SUCCESS.json"
_LOCK = "_LOCK"
_KEY = b"espalier"
_PART = re.compile(r"part-\d{5,}\.parquet")
_UNFINISHED = ".unfinished-"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a part belongs to. `inputs` is the digest of the rows that were scored."""

    project: str
    as_of: str
    model_version: str
    model_digest: str
    part: int
    parts: int
    inputs: str

    @property
    def run(self) -> str:
        """The run in words."""
        return f"{self.project} as of {self.as_of} by version {self.model_version}"

    @property
    def file(self) -> str:
        """The part's file name."""
        return f"part-{self.part:05}.parquet"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep other runs out of it; the lock ends with the process.

    Raises:
        CheckRefused: another run writes there.
        ConfigurationError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("w")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckRefused(
                f"another run writes to {folder}", fix="wait for it, or choose another folder"
            ) from error
        yield


def missing(folder: Path, wanted: Sequence[Identity]) -> list[Identity]:
    """Which parts are still to be written; what an unfinished or a differently cut run left goes.

    Raises:
        UsageError: the folder holds another run's parts, or Parquet files that are none.
    """
    names = {identity.file: identity for identity in wanted}
    present, stale = set[str](), list[Path]()
    for path in sorted(folder.iterdir()):
        if path.name.startswith(_UNFINISHED):
            stale.append(path)
        elif path.suffix == ".parquet":
            found = _identity(path)
            if not _PART.fullmatch(path.name) or (found and found.run != wanted[0].run):
                raise UsageError(
                    f"{folder} holds {path.name}"
                    + (f" of {found.run}" if found else ", which is no part of a run"),
                    fix="choose another folder, one for each day and model version",
                )
            if found is not None and found == names.get(path.name):
                present.add(path.name)
            else:
                stale.append(path)
    absent = [identity for identity in wanted if identity.file not in present]
    if absent or stale:
        # Readers that wait for the closing file must not take an unfinished folder for a whole one.
        (folder / SUCCESS).unlink(missing_ok=True)
    for path in stale:
        path.unlink()
    return absent


def write(folder: Path, identity: Identity, table: pa.Table) -> None:
    """Store one part under its final name, once it is complete.

    Raises:
        ConfigurationError: the folder cannot be written, or is full.
    """
    kept = {_KEY: json.dumps(asdict(identity), sort_keys=True).encode()}
    table = table.replace_schema_metadata(kept)
    with _complete(folder, identity.file) as path:
        pq.write_table(table, path, compression="zstd")


def close(folder: Path, wanted: Sequence[Identity], rows: int) -> None:
    """Check that the parts hold `rows` rows together, and write the closing file.

    Raises:
        BadData: they hold another number of rows.
        ConfigurationError: the folder cannot be written, or is full.
    """
    files = [identity.file for identity in wanted]
    stored = sum(pq.read_metadata(folder / name).num_rows for name in files)
    if stored != rows:
        raise BadData(
            f"{folder} holds {stored} scores for {rows} entities", fix="delete it and score again"
        )
    if (folder / SUCCESS).exists():
        return
    first = wanted[0]
    content = {
        "project": first.project,
        "as_of": first.as_of,
        "model_version": first.model_version,
        "model_digest": first.model_digest,
        "rows": rows,
        "parts": files,
    }
    with _complete(folder, SUCCESS) as path:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _identity(path: Path) -> Identity | None:
    """What a file says it belongs to; None when it says nothing or is damaged."""
    try:
        kept: dict[bytes, bytes] = pq.read_metadata(path).metadata or {}
        values: dict[str, Any] = json.loads(kept[_KEY])
        return Identity(**values)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
        return None


@contextmanager
def _complete(folder: Path, name: str) -> Iterator[Path]:
    """A file to write to, which gets its name when all went well."""
    try:
        handle, made = tempfile.mkstemp(prefix=_UNFINISHED, dir=folder)
        os.close(handle)
        unfinished = Path(made)
        try:
            yield unfinished
            # mkstemp makes it private; scores are read by others.
            unfinished.chmod(0o644)
            unfinished.replace(folder / name)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"the output folder {folder} cannot be written: {error.strerror or error}",
        fix="make room there, or choose another folder",
    )
