"""Pictures of a model beside its baseline, as PNG files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from espalier.project import Task
from espalier.training import evaluate
from espalier.training.evaluate import Booleans, Floats, Labels

_BINS = 10
# In a confusion matrix of more classes no number could be read.
_MOST_NUMBERS = 15


def draw(
    labels: Labels,
    scores: Mapping[str, Floats],
    into: Path,
    *,
    title: str,
    importance: Mapping[str, float],
    folds: Mapping[str, Sequence[tuple[str, float]]],
    metric: str,
    task: Task = Task.BINARY,
    classes: Sequence[str] = (),
) -> list[Path]:
    """Write the pictures into an existing folder.

    Always `importance.png` and `months.png` (the metric at each label time, or for each part of the
    entities). Of two classes `roc.png`, `precision_recall.png`, `calibration.png` and `scores.png`
    (distribution by class, of the first model); of several `roc.png` (each class against the rest)
    and `confusion.png`, of the first model; of a number `predicted.png` and `errors.png`.

    Args:
        labels: [n], as in `evaluate.evaluation`.
        scores: By the name that the legend shows, as in `evaluate.evaluation`.
        into: The folder.
        title: Above each picture.
        importance: By feature, the largest first.
        folds: By the legend's name the metric by what was predicted.
        metric: Its name.
        task: What is predicted.
        classes: The names of several classes.
    """
    pictures = _Pictures(into, title)
    if task is Task.BINARY:
        _binary(pictures, labels, scores)
    elif task is Task.MULTICLASS:
        _multiclass(pictures, labels, next(iter(scores.values())), classes)
    else:
        _regression(pictures, labels, scores)
    main = evaluate.title(evaluate.main_metric(task))
    with pictures.axes("importance", f"fall of {main} when permuted", "") as axes:
        names = list(importance)[::-1]
        axes.barh(names, [importance[name] for name in names], label="permutation importance")
    with pictures.axes("months", "predicted by other labels than these", metric) as axes:
        for name, points in folds.items():
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        axes.tick_params("x", rotation=30)
    return pictures.written


def _binary(pictures: _Pictures, labels: Booleans, scores: Mapping[str, Floats]) -> None:
    from sklearn.metrics import precision_recall_curve, roc_curve

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


def _multiclass(
    pictures: _Pictures, labels: Labels, scores: Floats, classes: Sequence[str]
) -> None:
    from sklearn.metrics import confusion_matrix, roc_curve

    with pictures.axes("roc", "false positive rate", "true positive rate") as axes:
        axes.plot([0, 1], [0, 1], **_REFERENCE)
        for place, name in enumerate(classes):
            fpr, tpr, _ = roc_curve(labels == place, scores[:, place])
            axes.plot(fpr, tpr, linewidth=1.2, label=name)
    counts = confusion_matrix(labels, scores.argmax(axis=1), labels=range(len(classes)))
    with pictures.axes("confusion", "most probable class", "class") as axes:
        axes.imshow(counts, cmap="Blues")
        axes.set_xticks(range(len(classes)), classes, rotation=30)
        axes.set_yticks(range(len(classes)), classes)
        if len(classes) <= _MOST_NUMBERS:
            for (row, column), count in np.ndenumerate(counts):
                dark = count > counts.max() / 2
                axes.text(column, row, str(count), ha="center", color="w" if dark else "k")


def _regression(pictures: _Pictures, labels: Labels, scores: Mapping[str, Floats]) -> None:
    with pictures.axes("predicted", "label", "predicted") as axes:
        axes.plot([labels.min(), labels.max()], [labels.min(), labels.max()], **_REFERENCE)
        for name, values in scores.items():
            axes.plot(labels, values, ".", markersize=3, alpha=0.6, label=name)
    with pictures.axes("errors", "predicted less label", "rows") as axes:
        for name, values in scores.items():
            axes.hist(values - labels, 40, alpha=0.6, label=name)


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
        if axes.get_legend_handles_labels()[0]:
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
