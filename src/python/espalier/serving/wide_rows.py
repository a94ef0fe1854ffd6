"""The online store's rows on the wire: the query for them, and the matrix out of its answer.

PostgreSQL sends a row's features as one array of doubles, so that a batch becomes a matrix at once
instead of value by value.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from psycopg import sql
from psycopg.pq.abc import PGresult

from espalier.features import layout
from espalier.postgres.binary import EPOCH

# pg_type's number of boolean, which has no cast to double precision.
_BOOLEAN = 16


def plain_query(project: str, view: str, join_key: str, features: Sequence[str]) -> bytes:
    """Key, event_timestamp and features as the table has them, for an array of keys."""
    query = layout.select_rows(project, view, join_key, features).as_bytes()
    # In libpq's own notation.
    return query.replace(b"%s", b"$1")


def row_query(plain: bytes, join_key: str, features: Sequence[str], types: Sequence[int]) -> bytes:
    """The query for `rows_of`; `types` are those of the columns of the `plain` one."""
    values = [
        sql.SQL("coalesce({}::float8, 'NaN')").format(
            sql.SQL("{}::int").format(sql.Identifier(name))
            if kind == _BOOLEAN
            else sql.Identifier(name)
        )
        for name, kind in zip(features, types[2:], strict=True)
    ]
    head = sql.SQL("SELECT {key}::text, event_timestamp, ARRAY[{values}]::float8[] FROM (").format(
        key=sql.Identifier(join_key), values=sql.SQL(", ").join(values)
    )
    return head.as_bytes() + plain + b") AS stored"


def array_literal(keys: Sequence[str]) -> bytes:
    """An array's text; PostgreSQL takes the values' type from where it is used."""
    if not keys:
        return b"{}"
    text = '","'.join(keys)
    if "\\" in text or text.count('"') != 2 * (len(keys) - 1):
        text = '","'.join(key.replace("\\", "\\\\").replace('"', '\\"') for key in keys)
    return f'{{"{text}"}}'.encode()


def rows_of(
    result: PGresult, width: int
) -> tuple[tuple[str, ...], tuple[datetime | None, ...], NDArray[np.float64]]:
    """Keys, times and the matrix [n, width], float64 with NaN for null, of a `row_query`'s answer."""
    value, rows = result.get_value, range(result.ntuples)
    if not rows:
        return (), (), np.empty((0, width))
    keys = tuple([str(value(row, 0), "utf-8") for row in rows])  # type: ignore[arg-type]  # a key
    stamps = [value(row, 1) for row in rows]
    # A batch has few different times.
    known = {stamp: _time(stamp) for stamp in set(stamps)}
    arrays: list[bytes] = [value(row, 2) for row in rows]  # type: ignore[misc]  # an array
    # An array has a head of 20 bytes, and before each value its length.
    record = np.dtype(
        [("head", "V20"), ("values", [("length", ">i4"), ("value", ">f8")], (width,))]
    )
    found = np.frombuffer(b"".join(arrays), dtype=record)
    return keys, tuple([known[s] for s in stamps]), found["values"]["value"].astype(np.float64)


def _time(stamp: bytes | None) -> datetime | None:
    if stamp is None:
        return None
    try:
        return EPOCH + timedelta(microseconds=int.from_bytes(stamp, "big", signed=True))
    except OverflowError:
        # PostgreSQL's infinity tells no time.
        return None
