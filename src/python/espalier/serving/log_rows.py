"""Served batches as rows of `espalier.predictions`, in PostgreSQL's binary COPY format.

By numpy and for many batches at once: a row in psycopg's own way takes ten times as long, in a
thread that then keeps the event loop from the interpreter.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from espalier.postgres.binary import EPOCH
from espalier.serving.batching import Origins
from espalier.serving.loading import LoadedModel
from espalier.serving.reader import FeatureRows
from espalier.serving.scorer import answers, valid

COPY = (
    "COPY espalier.predictions (served_at, project, model_version, entity_id, score, prediction, "
    "feature_time, features, probabilities, shadow, request_id, trace_id) "
    "FROM STDIN (FORMAT BINARY)"
)

_COLUMNS = struct.pack(">h", COPY.count(",") + 1)
_NULL = struct.pack(">i", -1)
_MICROSECOND = timedelta(microseconds=1)
_HASHES = 2**32
# pg_type's number of double precision.
_DOUBLE = 701


@dataclass(frozen=True)
class Served:
    """One batch as it was served; its rows are made when they are written."""

    model: LoadedModel
    rows: FeatureRows
    scores: NDArray[np.float64]
    at: datetime
    origins: Origins[str]
    shadow: bool = False

    @property
    def scored(self) -> int:
        """How many of its rows have a score that is one."""
        return int(np.count_nonzero(valid(self.scores, self.model.manifest.task)))


def encoded(batches: Sequence[Served], sample: float) -> tuple[bytes, int, int]:
    """The rows of `batches`, how many they are, and how many the `sample` leaves out.

    A row with an invalid score is neither: it was not served.
    """
    parts: list[bytes] = []
    left_out = 0
    # With little traffic a batch is one row, and by itself would cost as much as twenty.
    for _, alike in groupby(batches, lambda batch: (id(batch.model), batch.shadow)):
        rows = list(_rows(list(alike), sample))
        written = [row for row in rows if row]
        left_out += len(rows) - len(written)
        parts += written
    return b"".join(parts), len(parts), left_out


def _rows(batches: Sequence[Served], sample: float) -> Iterator[bytes]:
    """The rows of batches of one model and role; an empty one for each that is not sampled."""
    model, shadow = batches[0].model, batches[0].shadow
    matrix = np.concatenate([batch.rows.matrix for batch in batches])
    scores = np.concatenate([batch.scores for batch in batches])
    served = answers(model.manifest, scores)
    values = zip(
        served.score.tolist(),
        served.prediction.tolist(),
        valid(scores, model.manifest.task).tolist(),
        _arrays(matrix),
        _tails(scores, has_classes=bool(model.manifest.classes), shadow=shadow),
        strict=True,
    )
    names = _text(model.manifest.project) + _text(model.identity.version)
    for batch in batches:
        head = _COLUMNS + _time(batch.at) + names
        times = {when: _NULL if when is None else _time(when) for when in set(batch.rows.times)}
        for key, when in zip(batch.rows.keys, batch.rows.times, strict=True):
            score, prediction, ok, features, tail = next(values)
            if not ok:
                continue
            if sample < 1 and not _sampled(key, batch.at, sample):
                yield b""
                continue
            caller = batch.origins.get(key)
            yield b"".join(
                [
                    head,
                    _text(key),
                    _numbers(8, score, 8, prediction),
                    times[when],
                    features,
                    tail,
                    _text(caller.request_id) if caller else _NULL,
                    _text(caller.trace_id) if caller and caller.trace_id else _NULL,
                ]
            )


def _tails(scores: NDArray[np.float64], *, has_classes: bool, shadow: bool) -> list[bytes]:
    """Each row's probabilities and whether it is a shadow's."""
    end = b"\0\0\0\1" + (b"\1" if shadow else b"\0")
    if has_classes:
        return [cell + end for cell in _arrays(scores)]
    return [_NULL + end] * len(scores)


_numbers = struct.Struct(">idid").pack
_size = struct.Struct(">i").pack
_timestamp = struct.Struct(">iq").pack


def _text(value: str) -> bytes:
    data = value.encode()
    return _size(len(data)) + data


def _time(at: datetime) -> bytes:
    return _timestamp(8, (at - EPOCH) // _MICROSECOND)


def _arrays(matrix: NDArray[np.float64]) -> list[bytes]:
    """Each row as an array of doubles; NaN was a null feature, and is null again."""
    count, width = matrix.shape
    record = _record(width)
    found = np.empty(count, dtype=record)
    found["size"] = record.itemsize - 4
    found["head"] = (1, 0, _DOUBLE, width, 1)
    found["values"]["size"] = 8
    found["values"]["v"] = matrix
    data, length = found.tobytes(), record.itemsize
    cells = [data[start : start + length] for start in range(0, count * length, length)]
    for row in np.flatnonzero(np.isnan(matrix).any(axis=1)).tolist():
        cells[row] = _array_with_nulls(matrix[row].tolist())
    return cells


@cache
def _record(width: int) -> np.dtype[np.void]:
    values = [("size", ">i4"), ("v", ">f8")]
    return np.dtype([("size", ">i4"), ("head", ">i4", (5,)), ("values", values, (width,))])


def _array_with_nulls(values: Sequence[float]) -> bytes:
    body = b"".join(
        _NULL if value != value else struct.pack(">id", 8, value)  # noqa: PLR0124  # NaN
        for value in values
    )
    head = struct.pack(">5i", 1, 1, _DOUBLE, len(values), 1)
    return _size(len(head) + len(body)) + head + body


def _sampled(key: str, at: datetime, sample: float) -> bool:
    # The same for champion and challenger, another one at another time.
    return zlib.crc32(f"{key} {at.timestamp()}".encode()) < sample * _HASHES
