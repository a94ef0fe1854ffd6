"""Pictures of a model beside its baseline, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from espalier.training.evaluate import Booleans, Floats

_BINS = 10


def draw(labels: Booleans, scores: Mapping[str, Floats], into: Path, *, title: str) -> list[Path]:
    """Write `roc.png`, `precision_recall.png` and `calibration.png` into an existing folder.

    Args:
        labels: [n].
        scores: By the name that the legend shows, [n] each.
        into: The folder.
        title: Above each picture.
    """
    # The object interface with the Agg canvas: no global state, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.metrics import precision_recall_curve, roc_curve

    share = float(labels.mean())
    curves: dict[str, tuple[str, str, dict[str, tuple[Floats, Floats]], list[float]]] = {
        "roc": ("false positive rate", "true positive rate", {}, [0, 1]),
        "precision_recall": ("recall", "precision", {}, [share, share]),
        "calibration": ("mean score of a tenth of the rows", "share of positives", {}, [0, 1]),
    }
    for name, values in scores.items():
        fpr, tpr, _ = roc_curve(labels, values)
        precision, recall, _ = precision_recall_curve(labels, values)
        curves["roc"][2][name] = (fpr, tpr)
        curves["precision_recall"][2][name] = (recall, precision)
        curves["calibration"][2][name] = calibration(labels, values)
    written = []
    for file, (x_label, y_label, lines, reference) in curves.items():
        figure = Figure(figsize=(5, 4), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.plot([0, 1], reference, color="0.7", linestyle="--", linewidth=1)
        for name, (x, y) in lines.items():
            marker = "o" if file == "calibration" else None
            axes.plot(x, y, marker=marker, markersize=3, linewidth=1.2, label=name)
        axes.set(xlabel=x_label, ylabel=y_label, title=title)
        axes.legend()
        written.append(into / f"{file}.png")
        figure.savefig(written[-1])
    return written


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
