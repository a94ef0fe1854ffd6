"""Whether CSV text surely holds the declared types, told at hundreds of megabytes a second.

PostgreSQL reads more as a type than a file may hold: 'today' is a date to it, 0x1F an integer and
NaN a double. `staging.PATTERNS` say what a file may hold; checked by PostgreSQL, field by field,
they take longer than all else. Here one regular expression of a whole record, from the same
patterns, runs over the bytes as a deterministic automaton (RE2, by way of pyarrow). Text that it
matches and whose typed COPY succeeds is text that the slow path accepts. The reverse need not be
true: text in unusual quotes is left to the slow path.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from espalier.contract import ColumnType
from espalier.ingest.source import SourceFile

# The automaton is fastest on texts that stay in the processor's cache.
_SLICE_BYTES = 1 << 16

_MANTISSA = r"(?:\d+\.?\d*|\.\d+)"
_NOT_ZERO = r"(?:0*[1-9]\d*(?:\.\d*)?|0*\.0*[1-9]\d*)"
_EXPONENT = r"(?:[eE][+-]?\d+)?"
_ANY_DOUBLE = rf"[+-]?{_MANTISSA}{_EXPONENT}"
_TIME = r"[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d(?::?\d\d)?)?"
# As in `staging.PATTERNS`, which says what is accepted; but -0 is told apart.
_FIELDS: Mapping[ColumnType, str] = {
    ColumnType.INTEGER: r"[+-]?\d+",
    ColumnType.DOUBLE: rf"\+?{_MANTISSA}{_EXPONENT}|-{_NOT_ZERO}{_EXPONENT}",
    ColumnType.BOOLEAN: r"[tT](?:[rR][uU][eE])?|[fF](?:[aA][lL][sS][eE])?|[10]",
    ColumnType.DATE: r"\d{4}-\d\d-\d\d",
    ColumnType.TIMESTAMP: rf"\d{{4}}-\d\d-\d\d(?:{_TIME})?",
}


class PlainText:
    """The check of one file, piece by piece.

    `minus_zero` tells whether a -0 may have been among the doubles so far: it is equal to 0 but
    not written alike, so staging turns it into 0.
    """

    def __init__(self, source: SourceFile) -> None:
        self.minus_zero = False
        types = [source.table.column(name).type for name in source.header]
        self._pattern = _records(types, _FIELDS)
        self._with_minus_zero = _records(types, {**_FIELDS, ColumnType.DOUBLE: _ANY_DOUBLE})

    def holds(self, records: bytes) -> bool:
        """Whether every field of these whole records, without the header, is of its type."""
        if not records.endswith(b"\n"):
            records += b"\n"
        if self._match(_slices(records)):
            return True
        # A line end within quotes may have been taken for a record's.
        return b'"' in records and self._match([records])

    def _match(self, parts: list[bytes]) -> bool:
        texts = pa.array(parts, pa.binary())
        if _all_match(texts, self._pattern):
            return True
        if self._with_minus_zero != self._pattern and _all_match(texts, self._with_minus_zero):
            self.minus_zero = True
            return True
        return False


def _records(types: list[ColumnType], fields: Mapping[ColumnType, str]) -> str:
    # An empty field is null, in quotes or not.
    text = r'[^",\r\n]*|"(?:[^"]|"")*"'
    columns = [
        text if kind is ColumnType.TEXT else f'(?:{fields[kind]})?|"(?:{fields[kind]})?"'
        for kind in types
    ]
    record = ",".join(f"(?:{column})" for column in columns)
    return rf"\A(?:{record}\r?\n)*\z"


def _slices(records: bytes) -> list[bytes]:
    """Parts that end at a line end, which is a record's end too if every part matches.

    For then each holds its quotes in pairs.
    """
    slices, start = [], 0
    while start < len(records):
        end = records.rfind(b"\n", start, start + _SLICE_BYTES) + 1
        if not end:
            end = records.index(b"\n", start) + 1
        slices.append(records[start:end])
        start = end
    return slices


def _all_match(slices: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(slices, pattern), min_count=0).as_py())
