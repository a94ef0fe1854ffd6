"""Scores in the binary form of PostgreSQL's COPY, made by column and not by row.

Rows whose keys have the same number of bytes have one layout, so they are one array; the order of a
table's rows is free.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from espalier.postgres.binary import END, EPOCH_SHIFT, HEADER

_NUMBERS = (("score", ">f8"), ("prediction", ">f8"), ("feature_time", ">i8"))


def score_rows(run_id: int, table: pa.Table, key: str) -> Iterator[bytes]:
    """Rows of `espalier.scores` (run_id, entity_id, score, prediction, feature_time) in chunks.

    Args:
        run_id: The run, in every row.
        table: The keys and scores of a part, as `work.score_part` makes them; no nulls.
        key: The keys' column; integers are written as their digits.
    """
    keys = table[key].cast(pa.string()).cast(pa.large_binary()).combine_chunks()
    lengths = pc.binary_length(keys).to_numpy(zero_copy_only=False)
    columns = {
        "score": table["score"].to_numpy(),
        "prediction": table["prediction"].to_numpy(),
        "feature_time": table["feature_time"].cast(pa.int64()).to_numpy() - EPOCH_SHIFT,
    }
    yield HEADER
    for length in np.unique(lengths).tolist():
        chosen = np.flatnonzero(lengths == length)
        rows = np.empty(len(chosen), _layout(length))
        rows["fields"] = 2 + len(columns)
        rows["run_id_length"], rows["run_id"] = 8, run_id
        rows["entity_id_length"] = length
        if length:
            # Taken anew, so its bytes lie one after the other from the first on.
            text = keys.take(pa.array(chosen)).buffers()[2]
            rows["entity_id"] = np.frombuffer(text, f"V{length}", count=len(chosen))
        for name, values in columns.items():
            rows[f"{name}_length"], rows[name] = 8, values[chosen]
        yield rows.tobytes()
    yield END


def _layout(length: int) -> np.dtype[Any]:
    """A row whose key has so many bytes."""
    fields = [("fields", ">i2"), ("run_id_length", ">i4"), ("run_id", ">i8")]
    fields.append(("entity_id_length", ">i4"))
    if length:
        fields.append(("entity_id", f"V{length}"))
    for name, kind in _NUMBERS:
        fields += [(f"{name}_length", ">i4"), (name, kind)]
    return np.dtype(fields)
