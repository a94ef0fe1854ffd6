"""Pictures of a model beside its baseline, as PNG files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from espalier.training.evaluate import Booleans, Floats

_BINS = 10


def draw(
    labels: Booleans,
    scores: Mapping[str, Floats],
    into: Path,
    *,
    title: str,
    importance: Mapping[str, float],
    months: Mapping[str, Sequence[tuple[date, float]]],
    metric: str,
) -> list[Path]:
    """Write the pictures into an existing folder.

    `roc.png`, `precision_recall.png`, `calibration.png`, `scores.png` (distribution by class, of
    the first model), `importance.png` and `months.png` (the metric at each label time).

    Args:
        labels: [n].
        scores: By the name that the legend shows, [n] each.
        into: The folder.
        title: Above each picture.
        importance: By feature, the largest first.
        months: By the legend's name the metric at label times.
        metric: Its name.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    pictures = _Pictures(into, title)
    with pictures.axes("roc", "false positive rate", "true positive rate") as axes:
        axes.plot([0, 1], [0, 1], **_REFERENCE)
        for name, values in scores.items():
            fpr, tpr, _ = roc_curve(labels, values)
            axes.plot(fpr, tpr, linewidth=1.2, label=name)
    with pictures.axes("precision_recall", "recall", "precision") as axes:
        axes.plot([0, 1], [labels.mean()] * 2, **_REFERENCE)
        for name, values in scores.items():
            precision, recall, _ = precision_recall_curve(labels, values)
            axes.plot(recall, precision, linewidth=1.2, label=name)
    with pictures.axes(
        "calibration", "mean score of a tenth of the rows", "share of positives"
    ) as axes:
        axes.plot([0, 1], [0, 1], **_REFERENCE)
        for name, values in scores.items():
            axes.plot(*calibration(labels, values), marker="o", markersize=3, label=name)
    with pictures.axes("scores", "score", "rows") as axes:
        first = next(iter(scores.values()))
        for value, name in ((True, "positive"), (False, "negative")):
            axes.hist(first[labels == value], np.linspace(0, 1, 41), alpha=0.6, label=name)
    with pictures.axes("importance", "fall of ROC-AUC when permuted", "") as axes:
        names = list(importance)[::-1]
        axes.barh(names, [importance[name] for name in names], label="permutation importance")
    with pictures.axes("months", "label time, predicted by older labels", metric) as axes:
        for name, points in months.items():
            days = [day.isoformat() for day, _ in points]
            axes.plot(days, [value for _, value in points], marker="o", markersize=3, label=name)
        axes.tick_params("x", rotation=30)
    return pictures.written


_REFERENCE: dict[str, Any] = {"color": "0.7", "linestyle": "--", "linewidth": 1}


class _Pictures:
    """Writes one figure after the other."""

    def __init__(self, into: Path, title: str) -> None:
        self._into, self._title = into, title
        self.written: list[Path] = []

    @contextmanager
    def axes(self, name: str, x_label: str, y_label: str) -> Iterator[Any]:
        # The object interface with the Agg canvas: no global state, no display.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 4), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        yield axes
        axes.set(xlabel=x_label, ylabel=y_label, title=self._title)
        axes.legend()
        self.written.append(self._into / f"{name}.png")
        figure.savefig(self.written[-1])


def calibration(labels: Booleans, scores: Floats) -> tuple[Floats, Floats]:
    """Mean score and share of positives in each of up to ten groups of equal size, by score.

    Equal scores stay together, so that a model with few distinct scores has fewer groups.
    """
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, _BINS + 1)[1:-1]))
    group = np.searchsorted(edges, scores, side="left")
    count = np.bincount(group)
    filled = count > 0
    mean = np.bincount(group, weights=scores)[filled] / count[filled]
    positive = np.bincount(group, weights=labels.astype(np.float64))[filled] / count[filled]
    return mean, positive
