"""Scores in the binary form of PostgreSQL's COPY, made by column and not by row.

Rows whose keys have the same number of bytes have one layout, so they are one array; the order of a
table's rows is free.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from espalier.postgres.binary import END, EPOCH_SHIFT, HEADER

_NUMBERS = (("score", ">f8"), ("prediction", ">f8"), ("feature_time", ">i8"))
# pg_type's number of double precision.
_DOUBLE = 701
_NULL = -1


def score_rows(run_id: int, table: pa.Table, key: str) -> Iterator[bytes]:
    """Rows of `espalier.scores`, its columns in their order, in chunks.

    Args:
        run_id: The run, in every row.
        table: The keys and scores of a part, as `work.score_part` makes them; no nulls. Without a
            column of probabilities those are null.
        key: The keys' column; integers are written as their digits.
    """
    keys = table[key].cast(pa.string()).cast(pa.large_binary()).combine_chunks()
    lengths = pc.binary_length(keys).to_numpy(zero_copy_only=False)
    columns = {
        "score": table["score"].to_numpy(),
        "prediction": table["prediction"].to_numpy(),
        "feature_time": table["feature_time"].cast(pa.int64()).to_numpy() - EPOCH_SHIFT,
    }
    probabilities = _probabilities(table)
    width = probabilities.shape[1]
    yield HEADER
    for length in np.unique(lengths).tolist():
        chosen = np.flatnonzero(lengths == length)
        rows = np.empty(len(chosen), _layout(length, width))
        rows["fields"] = 3 + len(columns)
        rows["run_id_length"], rows["run_id"] = 8, run_id
        rows["entity_id_length"] = length
        if length:
            # Taken anew, so its bytes lie one after the other from the first on.
            text = keys.take(pa.array(chosen)).buffers()[2]
            rows["entity_id"] = np.frombuffer(text, f"V{length}", count=len(chosen))
        for name, values in columns.items():
            rows[f"{name}_length"], rows[name] = 8, values[chosen]
        rows["array_length"] = _NULL
        if width:
            rows["array_length"] = 20 + 12 * width
            rows["array_head"] = (1, 0, _DOUBLE, width, 1)
            rows["values"]["length"], rows["values"]["value"] = 8, probabilities[chosen]
        yield rows.tobytes()
    yield END


def _probabilities(table: pa.Table) -> npt.NDArray[np.float64]:
    """[n, k]; of no classes [n, 0]."""
    if "probabilities" not in table.column_names:
        return np.empty((len(table), 0))
    column = table["probabilities"].combine_chunks()
    values: npt.NDArray[np.float64] = column.flatten().to_numpy()
    return values.reshape(len(table), column.type.list_size)


def _layout(length: int, width: int) -> np.dtype[Any]:
    """A row whose key has so many bytes, with an array of so many numbers or null in its place."""
    fields: list[tuple[Any, ...]] = [("fields", ">i2"), ("run_id_length", ">i4"), ("run_id", ">i8")]
    fields.append(("entity_id_length", ">i4"))
    if length:
        fields.append(("entity_id", f"V{length}"))
    for name, kind in _NUMBERS:
        fields += [(f"{name}_length", ">i4"), (name, kind)]
    fields.append(("array_length", ">i4"))
    if width:
        fields.append(("array_head", ">i4", (5,)))
        fields.append(("values", [("length", ">i4"), ("value", ">f8")], (width,)))
    return np.dtype(fields)
