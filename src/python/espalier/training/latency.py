"""How long the served file takes for one row."""

from __future__ import annotations

import statistics
import time

from espalier.training.evaluate import Floats
from espalier.training.onnx_export import Score

_WARM_UP, _RUNS = 20, 200
# A slow model has told enough after so long.
_SECONDS = 1.0


def one_row_milliseconds(score: Score, rows: Floats) -> float:
    """The median of up to 200 runs of one row after a warm-up, in milliseconds.

    The median, since other work on the machine only ever adds to some of them. Rows [n, f] take
    turns. After a second no more runs are begun, and at least five count.
    """
    singles = [rows[i : i + 1] for i in range(min(len(rows), _RUNS))]
    began = time.perf_counter()
    for number in range(_WARM_UP):
        score(singles[number % len(singles)])
        if time.perf_counter() - began > _SECONDS:
            break
    spent: list[float] = []
    began = time.perf_counter()
    for number in range(_RUNS):
        before = time.perf_counter()
        score(singles[number % len(singles)])
        after = time.perf_counter()
        spent.append(after - before)
        if after - began > _SECONDS and len(spent) >= 5:
            break
    return statistics.median(spent) * 1000
