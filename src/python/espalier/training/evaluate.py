"""Metrics of a model's scores, whatever its task, and their bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from espalier import policies
from espalier.project import Task
from espalier.training.binary import BinaryEvaluation, Booleans, Floats
from espalier.training.multiclass import MulticlassEvaluation
from espalier.training.regression import RegressionEvaluation

__all__ = ["Booleans", "Floats"]

# [n]: bool of two classes, the place or the name of a class of several, or a number.
Labels = npt.NDArray[Any]

METRICS = policies.METRICS["binary"]
# Of these a higher value is better; of the others a lower one.
HIGHER_IS_BETTER = frozenset(
    {"roc_auc", "pr_auc", "lift_10", "accuracy", "balanced_accuracy", "macro_f1", "r2"}
)
DRAWS = 1000
_TITLES = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "macro_f1": "macro F1",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
}


@dataclass(frozen=True)
class Interval:
    """A percentile interval."""

    low: float
    high: float


class Evaluation(Protocol):
    """One model's scores against the labels, ready to be weighted many times."""

    def metrics(self, weights: Floats, names: Sequence[str]) -> dict[str, float]:
        """The named metrics with row weights [n]."""


def metrics_of(task: Task) -> tuple[str, ...]:
    """The names of a task's metrics, the main one first."""
    return policies.METRICS[task.value]


def main_metric(task: Task) -> str:
    """What says best how well a model tells rows apart: ROC-AUC, of a number R²."""
    return policies.METRICS[task.value][0]


def title(metric: str) -> str:
    """A metric's name as people write it."""
    return _TITLES.get(metric, metric.replace("_", " "))


def gain(metric: str, value: float | Floats, other: float | Floats) -> Any:
    """By how much the value is better than the other: above 0 when it is."""
    return value - other if metric in HIGHER_IS_BETTER else other - value


def evaluation(
    task: Task, labels: Labels, scores: Floats, classes: Sequence[str] = ()
) -> Evaluation:
    """Scores against labels, ready to be weighted.

    Args:
        task: What is predicted.
        labels: [n], bool, places or names of classes, or numbers.
        scores: The positive class's probability [n], of several classes the probabilities [n, k],
            or of a number the value [n].
        classes: Their names in order, needed only when labels are names.
    """
    if task is Task.REGRESSION:
        return RegressionEvaluation(labels.astype(np.float64), scores)
    if task is Task.MULTICLASS:
        return MulticlassEvaluation(places(labels, classes), scores)
    return BinaryEvaluation(labels, scores)


def places(labels: Labels, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """The place [n] of each label among the classes, -1 for none; places are given as they are."""
    if labels.dtype.kind in "iu":
        return labels.astype(np.int64)
    by_name = {name: place for place, name in enumerate(classes)}
    return np.array([by_name.get(name, -1) for name in labels.tolist()], dtype=np.int64)


def metrics(
    labels: Labels, scores: Floats, *, task: Task = Task.BINARY, classes: Sequence[str] = ()
) -> dict[str, float]:
    """All metrics of the task, of scores against labels as in `evaluation`."""
    found = evaluation(task, labels, scores, classes)
    return found.metrics(np.ones(len(labels)), metrics_of(task))


def bootstrap(
    labels: Labels,
    scores: Mapping[str, Floats],
    *,
    names: Sequence[str],
    seed: int,
    draws: int = DRAWS,
    task: Task = Task.BINARY,
    classes: Sequence[str] = (),
) -> dict[str, dict[str, Floats]]:
    """Metrics of several models on the same resampled rows.

    The models share each draw, so differences between them are paired. Rows are drawn with
    replacement; give one row an entity, since rows of one entity are not independent. Time grows
    with rows times draws: about 30 ns each for a binary model with one metric, 55 ns with all.

    Args:
        labels: [n], as in `evaluation`.
        scores: By model, as in `evaluation`.
        names: The metrics to compute.
        seed: Of the random generator.
        draws: How many times to resample.
        task: What is predicted.
        classes: As in `evaluation`.

    Returns:
        By model and metric the values [draws].
    """
    generator = np.random.default_rng(seed)
    count = len(labels)
    models = {model: evaluation(task, labels, values, classes) for model, values in scores.items()}
    found = {model: {name: np.empty(draws) for name in names} for model in scores}
    # Threads for sums of so few numbers wait for each other most of the time.
    with threadpool_limits(1):
        for draw in range(draws):
            drawn = generator.integers(0, count, count, dtype=np.int32)
            weights = np.bincount(drawn, minlength=count).astype(np.float64)
            for model, one in models.items():
                for name, value in one.metrics(weights, names).items():
                    found[model][name][draw] = value
    return found


def interval(values: Floats, confidence: float = 0.95) -> Interval:
    """The percentile interval of bootstrapped values, draws that lack a class left out."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))
