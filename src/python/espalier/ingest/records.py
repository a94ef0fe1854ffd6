"""A source file as CSV text: streamed, hashed, and cut into pieces of whole records."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from espalier.errors import BadData
from espalier.ingest import gunzip
from espalier.ingest.source import FileFacts, Format, SourceFile, not_utf8, unreadable

CHUNK_BYTES = 1 << 20
# What is longer is no record but a broken file, and would fill the memory here and in PostgreSQL.
MAX_RECORD_BYTES = 1 << 20

_NEWLINE, _QUOTE = ord("\n"), ord('"')


class Reader:
    """One pass over a file: iterate over it, then ask for `facts`.

    Each piece is UTF-8 without a byte order mark and holds whole records, with the header in the
    first; all but the last end in a line end.

    Raises:
        UsageError: the file cannot be read.
        BadData: it is not UTF-8, a record is longer than `MAX_RECORD_BYTES`, or it is not of its
            format.
    """

    def __init__(self, source: SourceFile) -> None:
        self._source = source
        self._sha256, self._size = hashlib.sha256(), 0

    @property
    def facts(self) -> FileFacts:
        """Hash and size of the file's bytes, once they were all read."""
        return FileFacts(self._sha256.hexdigest(), self._size)

    def __iter__(self) -> Iterator[bytes]:
        """The file's text, piece by piece."""
        self._sha256, self._size = hashlib.sha256(), 0
        path = self._source.path
        try:
            yield from cut(path, self._text())
        except OSError as error:
            raise unreadable(path, error) from error

    def _text(self) -> Iterator[bytes]:
        match self._source.format:
            case Format.CSV:
                yield from self._bytes()
            case Format.CSV_GZ:
                yield from gunzip.chunks(self._source.path, self._bytes(), CHUNK_BYTES)
            case Format.PARQUET:
                from espalier.ingest import parquet  # a third of a second, and only here

                for _ in self._bytes():
                    pass
                yield from parquet.csv_text(self._source)

    def _bytes(self) -> Iterator[bytes]:
        with self._source.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                self._sha256.update(chunk)
                self._size += len(chunk)
                yield chunk


def cut(path: Path, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The text of `chunks`, cut where records end; `path` is named in errors.

    A quote opens or closes a quoted field wherever it stands, as for PostgreSQL's COPY.

    Raises:
        BadData: see `Reader`; the line is told.
    """
    rest, line, begun = b"", 1, False
    for chunk in chunks:
        data = rest + chunk
        if not begun:
            if len(data) < len(codecs.BOM_UTF8):
                rest = data
                continue
            data, begun = data.removeprefix(codecs.BOM_UTF8), True
        end = _end_of_records(data)
        piece, rest = data[:end], data[end:]
        if piece:
            _check(path, piece, line)
            line += piece.count(b"\n")
            yield piece
        if len(rest) > MAX_RECORD_BYTES:
            raise BadData(
                f"{path} line {line}: a record of more than {MAX_RECORD_BYTES:,} bytes",
                fix="look for a quote that is not closed, or lines that do not end",
            )
    if rest:
        _check(path, rest, line)
        yield rest


def _end_of_records(data: bytes) -> int:
    """Where the last whole record ends; `data` begins with a record."""
    end = data.rfind(b"\n") + 1
    if data.count(b'"', 0, end) % 2 == 0:
        return end
    # The last line end is within quotes: look for the last one that is not.
    characters = np.frombuffer(data, dtype=np.uint8)
    quoted = np.cumsum(characters == _QUOTE, dtype=np.int64) % 2
    ends = np.flatnonzero((characters == _NEWLINE) & (quoted == 0))
    return int(ends[-1]) + 1 if len(ends) else 0


def _check(path: Path, piece: bytes, line: int) -> None:
    if not piece.isascii():
        try:
            piece.decode()
        except UnicodeDecodeError as error:
            raise not_utf8(path, line + piece.count(b"\n", 0, error.start)) from error
    # COPY would stop there and call it the end of the data.
    found = 0 if piece.startswith(b"\\.") else piece.find(b"\n\\.")
    if found >= 0:
        told = line + piece.count(b"\n", 0, found + 1)
        raise BadData(
            f"{path} line {told}: begins with \\., which ends a file for PostgreSQL",
            fix="put the field in quotes",
        )
