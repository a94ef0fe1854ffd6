"""Metrics of a model on the segments that a project declares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from espalier.policies import Slice
from espalier.project import Project, Task
from espalier.training import evaluate, fitting
from espalier.training.comparison import Comparison, compare
from espalier.training.evaluate import Floats, Labels

# With fewer rows of a class, or in all where a number is predicted, an interval says nothing.
MIN_OF_A_CLASS = 30


@dataclass(frozen=True)
class SliceResult:
    """One segment of the validation rows.

    `share` is that of the positive class; only of two classes there is one, and of a number no
    Brier score. Without a `comparison`, `skipped` says why.
    """

    name: str
    rows: int
    share: float | None
    brier: float | None
    comparison: Comparison | None
    skipped: str = ""

    def evidence(self) -> dict[str, Any]:
        """All of it as JSON values."""
        values = asdict(self)
        return values if self.rows else {**values, "share": None, "brier": None}


def measure(
    project: Project, rows: pd.DataFrame, challenger: Floats, opponent: Floats
) -> tuple[SliceResult, ...]:
    """Each declared slice of the validation rows [n], with both models' scores of them.

    The difference between the models is paired and bootstrapped as in `comparison.compare`. A
    slice with fewer than 30 rows of any class, or of a number fewer than 30 rows, is told but not
    compared.
    """
    labels, task = fitting.target(rows), project.task
    found = []
    for segment in project.slices:
        inside = contains(segment, rows[segment.feature].to_numpy(dtype=np.float64))
        count = int(inside.sum())
        of_them = labels[inside]
        fewest = _fewest(project, of_them)
        comparison, skipped = None, ""
        if fewest < MIN_OF_A_CLASS:
            of_what = "" if task is Task.REGRESSION else " of one class"
            skipped = f"{fewest} rows{of_what}, {MIN_OF_A_CLASS} are needed"
        else:
            comparison = compare(
                of_them,
                challenger[inside],
                opponent[inside],
                gate=project.gate,
                seed=project.seed,
                task=task,
            )
        brier = share = None
        if task is not Task.REGRESSION:
            brier = _brier(task, of_them, challenger[inside]) if count else float("nan")
        if task is Task.BINARY:
            share = float(of_them.mean()) if count else float("nan")
        found.append(SliceResult(segment.name, count, share, brier, comparison, skipped))
    return tuple(found)


def _fewest(project: Project, labels: Labels) -> int:
    """How many rows the rarest class has; of a number all rows."""
    if project.task is Task.REGRESSION:
        return len(labels)
    classes = len(project.label.classes) or 2
    return int(np.bincount(labels.astype(np.int64), minlength=classes).min())


def _brier(task: Task, labels: Labels, scores: Floats) -> float:
    found = evaluate.evaluation(task, labels, scores)
    return found.metrics(np.ones(len(labels)), ["brier"])["brier"]


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
        share = "" if one.share is None else f"{one.share:.1%}"
        brier = "" if one.brier is None else f"{one.brier:.4f}"
        start = f"| {one.name} | {one.rows:,} | {share} | {brier} "
        if one.comparison is None:
            lines.append(f"{start}| | | {one.skipped} |")
        else:
            c = one.comparison
            lines.append(
                f"{start}| {c.challenger:.4f} | {c.opponent:.4f} "
                f"| {c.difference:+.4f} ({c.low:+.4f} to {c.high:+.4f}) |"
            )
    return "\n".join(lines)
