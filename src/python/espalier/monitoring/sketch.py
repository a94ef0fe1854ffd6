"""A column's distribution in at most some thousand numbers, however many rows it has.

Drift is a distance between distributions, so it does not need the rows. A sketch keeps the values
at evenly spaced shares of the rows (the inverse of the empirical distribution function, read in
the middle of each of `POINTS` steps), which are values that were there, never means of two. A
column of no more rows is kept whole. The distribution function of what is kept is off by no more
than half a step, 1 / (2 POINTS), anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

POINTS = 2000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sketch:
    """A column of `rows` rows, `nulls` of them null; `quantiles` are its values in order.

    `spread` is the standard deviation of all values: that of a heavy tail is mostly in the few
    largest ones, of which the quantiles hold but one.
    """

    rows: int
    nulls: int
    spread: float
    quantiles: Floats

    @property
    def null_share(self) -> float:
        """The share of rows without a value; 0 of no rows."""
        return self.nulls / self.rows if self.rows else 0.0


def of_values(values: Floats) -> Sketch:
    """Sketch float64 values [n]; NaN and infinite ones are nulls."""
    present = np.sort(values[np.isfinite(values)])
    spread = float(present.std()) if len(present) else 0.0
    return Sketch(len(values), len(values) - len(present), spread, _thinned(present, POINTS))


def of_frame(frame: pd.DataFrame, columns: tuple[str, ...]) -> dict[str, Sketch]:
    """Sketch the columns of a frame, which are numeric."""
    return {name: of_values(frame[name].to_numpy(dtype=np.float64)) for name in columns}


def as_frame(sketches: Mapping[str, Sketch]) -> pd.DataFrame:
    """Rows whose columns are distributed as the sketches, NaN for null, one by one in order.

    Only each column by itself means something: which values stood in one row is not kept.
    """
    rows = min(POINTS, max((sketch.rows for sketch in sketches.values()), default=0))
    columns: dict[str, Any] = {}
    for name, sketch in sketches.items():
        column = np.full(rows, np.nan)
        present = round(rows * (1 - sketch.null_share))
        if len(sketch.quantiles):
            # A column that has a value keeps one.
            values = _thinned(sketch.quantiles, max(present, 1))
            column[: len(values)] = values
        columns[name] = column
    return pd.DataFrame(columns)


def _thinned(ordered: Floats, points: int) -> Floats:
    """`points` of the ordered values, or all of them when there are no more."""
    if len(ordered) <= points:
        return ordered
    middles = (np.arange(points) + 0.5) / points
    return ordered[(middles * len(ordered)).astype(np.int64)]
