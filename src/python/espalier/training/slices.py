"""Metrics of a model on the segments that a project declares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from espalier.policies import Slice
from espalier.project import Project
from espalier.training import evaluate, fitting
from espalier.training.comparison import Comparison, compare
from espalier.training.evaluate import Floats

# With fewer rows of a class, a ranking metric's interval says nothing.
MIN_OF_A_CLASS = 30


@dataclass(frozen=True)
class SliceResult:
    """One segment of the validation rows.

    `share` is that of the positive class. Without a `comparison`, `skipped` says why.
    """

    name: str
    rows: int
    share: float
    brier: float
    comparison: Comparison | None
    skipped: str = ""

    def evidence(self) -> dict[str, Any]:
        """All of it as JSON values."""
        values = asdict(self)
        return values if self.rows else {**values, "share": None, "brier": None}


def measure(
    project: Project, rows: pd.DataFrame, challenger: Floats, opponent: Floats
) -> tuple[SliceResult, ...]:
    """Each declared slice of the validation rows [n], with both models' scores [n] of them.

    The difference between the models is paired and bootstrapped as in `comparison.compare`. A
    slice with fewer than 30 rows of either class is told but not compared.
    """
    labels = fitting.target(rows)
    found = []
    for segment in project.slices:
        inside = contains(segment, rows[segment.feature].to_numpy(dtype=np.float64))
        count = int(inside.sum())
        of_them = labels[inside]
        fewest = min(int(of_them.sum()), count - int(of_them.sum()))
        comparison, skipped = None, ""
        if fewest < MIN_OF_A_CLASS:
            skipped = f"{fewest} rows of one class, {MIN_OF_A_CLASS} are needed"
        else:
            comparison = compare(
                of_them,
                challenger[inside],
                opponent[inside],
                gate=project.gate,
                seed=project.seed,
            )
        brier = float(np.mean((challenger[inside] - of_them) ** 2)) if count else float("nan")
        share = float(of_them.mean()) if count else float("nan")
        found.append(SliceResult(segment.name, count, share, brier, comparison, skipped))
    return tuple(found)


def contains(segment: Slice, values: Floats) -> evaluate.Booleans:
    """Which values [n] of the slice's feature are in its half-open range; NaN is in none."""
    return np.asarray((values >= segment.minimum) & (values < segment.maximum))


def table(results: Sequence[SliceResult], metric: str) -> str:
    """The slices as a Markdown table."""
    lines = [
        f"| slice | rows | positive | Brier | {metric} | opponent | difference (interval) |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in results:
        start = f"| {one.name} | {one.rows:,} | {one.share:.1%} | {one.brier:.4f} "
        if one.comparison is None:
            lines.append(f"{start}| | | {one.skipped} |")
        else:
            c = one.comparison
            lines.append(
                f"{start}| {c.challenger:.4f} | {c.opponent:.4f} "
                f"| {c.difference:+.4f} ({c.low:+.4f} to {c.high:+.4f}) |"
            )
    return "\n".join(lines)
