"""Source files of a batch: found, their header checked, streamed and hashed."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from espalier.contract import Table
from espalier.errors import BadData, UsageError

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """One table's file and the columns of its header, in the file's order."""

    table: Table
    path: Path
    header: tuple[str, ...]


@dataclass(frozen=True)
class FileFacts:
    """What identifies a file's bytes."""

    sha256: str
    size: int


def find(folder: Path, tables: Sequence[Table]) -> list[SourceFile]:
    """The file `<table>.csv` of each table, its header checked; nothing else is read.

    The header must name the declared columns, each once, in any order.

    Raises:
        UsageError: there is no such folder, or a file cannot be read.
        BadData: a file is missing, empty or not UTF-8, or its header is another one.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: there is no such folder", fix="name the folder that holds the CSV files"
        )
    missing = [f"{t.name}.csv" for t in tables if not (folder / f"{t.name}.csv").is_file()]
    if missing:
        raise BadData(
            f"{folder}: no {', '.join(missing)}", fix="a batch holds one file for each table"
        )
    found = []
    for table in tables:
        path = folder / f"{table.name}.csv"
        try:
            with path.open("rb") as file:
                start = file.read(CHUNK_BYTES)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
        header = read_header(path, start)
        check_header(path, header, [c.name for c in table.columns])
        found.append(SourceFile(table, path, header))
    return found


def read_header(path: Path, start: bytes) -> tuple[str, ...]:
    """The first CSV record of a file that begins with the bytes `start`.

    Raises:
        BadData: the file is empty, or its first record is not UTF-8 CSV.
    """
    try:
        decoded = codecs.getincrementaldecoder("utf-8-sig")().decode(start)
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    if not decoded.strip():
        raise BadData(f"{path}: is empty", fix="it needs a header, and a row for each record")
    try:
        return tuple(next(csv.reader(io.StringIO(decoded, newline=""), strict=True)))
    except csv.Error as error:
        raise BadData(f"{path}: its header is not CSV ({error})") from error


def check_header(path: Path, header: Sequence[str], declared: Sequence[str]) -> None:
    """Refuse a header that is not the declared columns, each once.

    Raises:
        BadData: names the missing, unknown and duplicated columns.
    """
    problems = {
        "missing": [name for name in declared if name not in header],
        "unknown": [name for name in dict.fromkeys(header) if name not in declared],
        "duplicated": [name for name, times in Counter(header).items() if times > 1],
    }
    named = [
        f"{problem} {', '.join(repr(name)[:60] for name in names)}"
        for problem, names in problems.items()
        if names
    ]
    if named:
        raise BadData(
            f"{path}: its header has other columns: {'; '.join(named)}",
            fix=f"the first line names {','.join(declared)} in any order",
        )


def stream(path: Path, write: Callable[[bytes], object]) -> FileFacts:
    """Pass the file to `write` in chunks, without a byte order mark, and hash it as it is.

    Raises:
        BadData: the file is not UTF-8, which is told by line.
    """
    digest, size, lines = hashlib.sha256(), 0, 0
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                raise _not_utf8(path, error, lines) from error
            write(chunk.removeprefix(codecs.BOM_UTF8) if size == 0 else chunk)
            digest.update(chunk)
            size += len(chunk)
            lines += chunk.count(b"\n")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error, lines) from error
    return FileFacts(digest.hexdigest(), size)


def _not_utf8(path: Path, error: UnicodeDecodeError, lines: int = 0) -> BadData:
    line = lines + error.object.count(b"\n", 0, error.start) + 1
    return BadData(f"{path} line {line}: is not UTF-8", fix="write the file as UTF-8")
