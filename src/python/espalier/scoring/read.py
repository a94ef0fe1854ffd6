"""A range of entities' features, without a Python object a row.

PostgreSQL puts each column's values into one string of bytes, in their binary form, so a range is
one row of a result. With a row for each entity most of batch scoring was spent on handling rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from psycopg import sql

from espalier.contract import ColumnType
from espalier.features import point_in_time
from espalier.postgres.binary import EPOCH_SHIFT
from espalier.postgres.connect import Connection
from espalier.project import Project

# A range's rows are sorted in memory.
_WORK_MEMORY = "SET LOCAL work_mem = '64MB'"


@dataclass(frozen=True, eq=False)
class Features:
    """Keys (string or int64 [n]), event times (UTC, us [n]), features float64 [n, f], NaN for null."""

    keys: pa.Array
    times: pa.Array
    matrix: npt.NDArray[np.float64]


def part_features(
    connection: Connection,
    project: Project,
    features: Sequence[str],
    *,
    as_of: date,
    first: str | None,
    before: str | None,
) -> Features:
    """The features of the entities from key `first` on, up to and without `before`.

    Values are those of `point_in_time.features_at`; rows are in the database's own order of the
    keys. Leaves a transaction open.
    """
    key_type = project.table(project.view.table).column(project.entity.join_key).type
    newest, parameters = point_in_time.newest_rows(
        project, features, when=as_of, first=first, before=before
    )
    # Aggregates of one query see its rows in one order.
    query = sql.SQL(
        "SELECT {numbers}, string_agg(timestamptz_send(event_time), ''), {keys} "
        "FROM ({newest}) AS newest"
    ).format(
        numbers=sql.SQL(", ").join(
            sql.SQL("string_agg(float8send(coalesce({}::float8, 'NaN')), '')").format(
                sql.Identifier(name)
            )
            for name in features
        ),
        keys=sql.SQL(
            "string_agg(int8send(entity), '')"
            if key_type is ColumnType.INTEGER
            else "string_agg(int4send(octet_length(convert_to(entity, 'UTF8'))), ''), "
            "string_agg(convert_to(entity, 'UTF8'), '')"
        ),
        newest=newest,
    )
    with connection.cursor(binary=True) as cursor:
        cursor.execute(_WORK_MEMORY)
        row = cursor.execute(query, parameters).fetchone()
    assert row is not None, "an aggregate gives a row"
    # Of no rows each is null.
    columns = [value or b"" for value in row]
    width = len(features)
    instants = np.frombuffer(columns[width], ">i8").astype(np.int64) + EPOCH_SHIFT
    matrix = np.empty((len(instants), width))
    for number in range(width):
        matrix[:, number] = np.frombuffer(columns[number], ">f8")
    return Features(
        keys=_keys(*columns[width + 1 :]),
        times=pa.array(instants).cast(pa.timestamp("us", tz="UTC")),
        matrix=matrix,
    )


def _keys(values: bytes, text: bytes | None = None) -> pa.Array:
    """Integers, or lengths and the texts' bytes one after the other."""
    if text is None:
        return pa.array(np.frombuffer(values, ">i8").astype(np.int64))
    ends = np.cumsum(np.frombuffer(values, ">i4"), dtype=np.int64)
    offsets = np.concatenate([[0], ends])
    keys = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(text))
    return keys.cast(pa.string())
