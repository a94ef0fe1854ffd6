"""Query results as NumPy columns: COPY's binary form, without a Python object a value.

Of a million rows of a dozen numbers, tuples take a gigabyte; these columns take what the numbers
do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from psycopg import sql

from espalier.postgres.binary import END, EPOCH_SHIFT, HEADER, SIGNATURE
from espalier.postgres.connect import Connection

Kind = Literal["int8", "float8", "bool", "timestamptz", "text"]
_FIXED: dict[str, tuple[str, str]] = {
    "int8": (">i8", "int64"),
    "float8": (">f8", "float64"),
    "bool": ("?", "bool"),
    # Microseconds, as are int8's units of the same width.
    "timestamptz": (">i8", "int64"),
}
# PostgreSQL's infinite times, and NumPy's "not a time".
NO_TIME = -(2**63)
_ROWS_A_CHUNK = 16_384

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Layout:
    """The bytes of a row: fields of a fixed width, and perhaps a text after them."""

    kinds: tuple[Kind, ...]

    @property
    def has_text(self) -> bool:
        return self.kinds[-1:] == ("text",)

    def dtype(self) -> np.dtype[Any]:
        fields: list[tuple[str, str]] = [("count", ">i2")]
        for number, kind in enumerate(self.kinds):
            fields.append((f"length{number}", ">i4"))
            if kind != "text":
                fields.append((f"value{number}", _FIXED[kind][0]))
        return np.dtype(fields)


def read_columns(
    connection: Connection,
    query: sql.Composable,
    kinds: Sequence[Kind],
    parameters: dict[str, Any] | None = None,
) -> list[Array]:
    """The columns of a query that gives no null; a text may only be the last of them.

    Args:
        connection: The database.
        query: The query; its parameters are merged into it here, since COPY takes none.
        kinds: Each column's type, as the query must give it.
        parameters: The query's named parameters.

    Returns:
        An array per column: int64, float64, bool, datetime64[us] in UTC (an infinite time is "not
        a time"), and an array of objects of texts.
    """
    layout = _Layout(tuple(kinds))
    assert "text" not in layout.kinds[:-1], "only the last column may have a width that varies"
    chunks: list[list[Array]] = []
    copied = sql.SQL("COPY ({}) TO STDOUT (FORMAT BINARY)").format(query)
    with connection.cursor() as cursor, cursor.copy(copied, parameters) as copy:
        rows: list[bytes] = []
        for row in _rows(copy):
            rows.append(row)
            if len(rows) == _ROWS_A_CHUNK:
                chunks.append(_columns(layout, rows))
                rows.clear()
        chunks.append(_columns(layout, rows))
    # One column after the other, so that only one is there twice.
    columns: list[Array] = []
    for number in range(len(kinds)):
        columns.append(np.concatenate([chunk[number] for chunk in chunks]))
        for chunk in chunks:
            chunk[number] = columns[-1][:0]
    return columns


def _rows(copy: Any) -> Iterator[bytes]:
    """Each row's bytes; libpq gives one row at a time, the header with the first."""
    first = bytes(copy.read())
    assert first.startswith(SIGNATURE), "PostgreSQL writes a signature first"
    row = first[len(HEADER) :]
    while True:
        if row and row[: len(END)] != END:
            yield row
        data = copy.read()
        if not data:
            return
        row = bytes(data)


def _columns(layout: _Layout, rows: list[bytes]) -> list[Array]:
    dtype = layout.dtype()
    size = dtype.itemsize
    stored = b"".join([row[:size] for row in rows] if layout.has_text else rows)
    assert len(stored) == size * len(rows), "each column has a value and the declared width"
    fixed = np.frombuffer(stored, dtype)
    columns = [
        _native(fixed[f"value{number}"], kind)
        for number, kind in enumerate(layout.kinds)
        if kind != "text"
    ]
    if layout.has_text:
        column = np.empty(len(rows), dtype=object)
        column[:] = [row[size:].decode() for row in rows]
        columns.append(column)
    return columns


def _native(stored: Array, kind: Kind) -> Array:
    values = stored.astype(_FIXED[kind][1])
    if kind == "timestamptz":
        infinite = (values == NO_TIME) | (values == 2**63 - 1)
        values = np.where(infinite, NO_TIME, values + EPOCH_SHIFT).view("datetime64[us]")
    return values
