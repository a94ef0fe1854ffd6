"""Source files of a batch: found by table and format, their columns checked."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from espalier.contract import Table
from espalier.errors import BadData, UsageError
from espalier.ingest import gunzip

# A header is in the file's first bytes, or it is none.
_START_BYTES = 1 << 20


class Format(Enum):
    """How a file holds its rows; the value is how its name ends."""

    CSV = ".csv"
    CSV_GZ = ".csv.gz"
    PARQUET = ".parquet"


@dataclass(frozen=True)
class SourceFile:
    """One table's file and the columns of its header, in the file's order."""

    table: Table
    path: Path
    header: tuple[str, ...]
    format: Format = Format.CSV


@dataclass(frozen=True)
class FileFacts:
    """What identifies a file's bytes."""

    sha256: str
    size: int


def find(folder: Path, tables: Sequence[Table]) -> list[SourceFile]:
    """The file of each table, its columns checked; no row is read.

    It is named `<table>.csv`, `<table>.csv.gz` or `<table>.parquet`, and has the declared columns,
    each once, in any order.

    Raises:
        UsageError: there is no such folder, or a file cannot be read.
        BadData: a table has no file or more than one, a file is not of its format, or its columns
            are others.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: there is no such folder", fix="name the folder that holds the batch's files"
        )
    chosen = {table.name: _named_after(folder, table.name) for table in tables}
    missing = [f"{name}.csv" for name, path in chosen.items() if path is None]
    if missing:
        raise BadData(
            f"{folder}: no {', '.join(missing)}",
            fix="a batch holds one file for each table: .csv, .csv.gz or .parquet",
        )
    found = []
    for table in tables:
        path = chosen[table.name]
        assert path is not None, "none is missing"
        file_format = Format(path.name.removeprefix(table.name))
        try:
            header = _columns(path, file_format)
        except OSError as error:
            raise unreadable(path, error) from error
        check_header(path, header, [c.name for c in table.columns])
        found.append(SourceFile(table, path, header, file_format))
    return found


def _named_after(folder: Path, name: str) -> Path | None:
    """The table's one file; None when there is nothing of its name."""
    paths = [folder / f"{name}{one.value}" for one in Format]
    # A link that leads nowhere is there too, and to be named.
    there = [path for path in paths if path.is_symlink() or path.exists()]
    if len(there) > 1:
        raise BadData(
            f"{folder}: table {name} has {len(there)} files: {', '.join(p.name for p in there)}",
            fix="leave one of them",
        )
    if there and not there[0].is_file():
        raise BadData(f"{there[0]}: is not a file", fix="put the table's file in its place")
    return there[0] if there else None


def _columns(path: Path, file_format: Format) -> tuple[str, ...]:
    if file_format is Format.PARQUET:
        from espalier.ingest import parquet  # a third of a second, and only here

        return parquet.columns(path)
    with path.open("rb") as file:
        if file_format is Format.CSV_GZ:
            start = next(
                gunzip.chunks(path, iter(lambda: file.read(1 << 16), b""), _START_BYTES), b""
            )
        else:
            start = file.read(_START_BYTES)
    return read_header(path, start)


def read_header(path: Path, start: bytes) -> tuple[str, ...]:
    """The first CSV record of a file that begins with the bytes `start`.

    Raises:
        BadData: the file is empty, its lines end in CR alone, or its first record is not UTF-8 CSV.
    """
    try:
        decoded = codecs.getincrementaldecoder("utf-8-sig")().decode(start)
    except UnicodeDecodeError as error:
        line = start.count(b"\n", 0, error.start) + 1
        raise not_utf8(path, line) from error
    if not decoded.strip():
        raise BadData(f"{path}: is empty", fix="it needs a header, and a row for each record")
    if "\r" in decoded and "\n" not in decoded:
        raise BadData(
            f"{path}: its lines end in CR alone", fix="end them with LF, or with CR and LF"
        )
    try:
        return tuple(next(csv.reader(io.StringIO(decoded, newline=""), strict=True)))
    except csv.Error as error:
        raise BadData(
            f"{path} line 1: the header is not CSV ({error})", fix="mend the header's quotes"
        ) from error


def check_header(path: Path, header: Sequence[str], declared: Sequence[str]) -> None:
    """Refuse columns that are not the declared ones, each once.

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
            fix=f"the columns are {','.join(declared)} in any order",
        )


def not_utf8(path: Path, line: int) -> BadData:
    """The error of a file whose text is in another encoding."""
    return BadData(f"{path} line {line}: is not UTF-8", fix="write the file as UTF-8")


def unreadable(path: Path, error: OSError) -> UsageError:
    """The error of a file that the system does not let us read."""
    return UsageError(
        f"{path}: cannot be read: {error.strerror or error}",
        fix="check the file, its folder and their permissions",
    )
