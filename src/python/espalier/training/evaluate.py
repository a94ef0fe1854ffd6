"""Metrics of a binary classifier's scores, their bootstrap intervals, and the decision threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

METRICS = ("roc_auc", "pr_auc", "brier", "log_loss")
# Of these a higher value is better; of the others a lower one.
HIGHER_IS_BETTER = ("roc_auc", "pr_auc")
DRAWS = 1000


@dataclass(frozen=True)
class Interval:
    """A percentile interval."""

    low: float
    high: float


class Evaluation:
    """One model's scores against the labels, ready to be weighted many times.

    Everything that does not depend on the rows' weights is computed once, which makes a bootstrap
    draw cost a few passes over the rows.
    """

    def __init__(self, labels: Booleans, scores: Floats) -> None:
        """Sort the rows by falling score; `labels` [n], `scores` [n] in 0 to 1."""
        self._order = np.argsort(-scores, kind="stable")
        ranked = scores[self._order]
        self._positive = labels[self._order].astype(np.float64)
        # The index that ends each group of equal scores: ties cannot be told apart.
        self._ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
        truth = labels.astype(np.float64)
        self._squared_error = (scores - truth) ** 2
        # As scikit-learn does, keep the logarithm finite by the precision of the scores' type.
        inside = np.clip(scores, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps)
        self._log_loss = -np.where(labels, np.log(inside), np.log1p(-inside))

    def metrics(self, weights: Floats, names: Sequence[str] = METRICS) -> dict[str, float]:
        """The named metrics with row weights [n].

        `roc_auc` is the probability that a positive row scores above a negative one, ties counting
        half (Mann and Whitney). `pr_auc` is the average precision, the sum over thresholds of
        precision times the recall gained, without interpolation. `brier` is the mean squared
        error, `log_loss` the mean negative log-likelihood. The first two are NaN when one class
        has no weight.
        """
        found: dict[str, float] = {}
        if "roc_auc" in names or "pr_auc" in names:
            ranked = weights[self._order]
            positive = np.cumsum(ranked * self._positive)[self._ends]
            every = np.cumsum(ranked)[self._ends]
            gained = np.diff(positive, prepend=0.0)
            negative = every - positive
            with np.errstate(invalid="ignore", divide="ignore"):
                below = negative[-1] - negative + np.diff(negative, prepend=0.0) / 2
                found["roc_auc"] = float(gained @ below / (positive[-1] * negative[-1]))
                # A leading group without weight has no precision, and gains no recall either.
                precision = np.divide(positive, every, out=np.zeros_like(every), where=every > 0)
                found["pr_auc"] = float(gained @ precision / positive[-1])
        total = weights.sum()
        found["brier"] = float(weights @ self._squared_error / total)
        found["log_loss"] = float(weights @ self._log_loss / total)
        return {name: found[name] for name in names}


def metrics(labels: Booleans, scores: Floats) -> dict[str, float]:
    """`METRICS` of scores [n] against labels [n]."""
    return Evaluation(labels, scores).metrics(np.ones(len(labels)))


def bootstrap(
    labels: Booleans,
    scores: Mapping[str, Floats],
    *,
    names: Sequence[str],
    seed: int,
    draws: int = DRAWS,
) -> dict[str, dict[str, Floats]]:
    """Metrics of several models on the same resampled rows.

    The models share each draw, so differences between them are paired. Rows are drawn with
    replacement; give one row an entity, since rows of one entity are not independent.

    Args:
        labels: [n].
        scores: By model, [n] each.
        names: The metrics to compute.
        seed: Of the random generator.
        draws: How many times to resample.

    Returns:
        By model and metric the values [draws].
    """
    generator = np.random.default_rng(seed)
    count = len(labels)
    models = {model: Evaluation(labels, values) for model, values in scores.items()}
    found = {model: {name: np.empty(draws) for name in names} for model in scores}
    for draw in range(draws):
        drawn = generator.integers(0, count, count)
        weights = np.bincount(drawn, minlength=count).astype(np.float64)
        for model, evaluation in models.items():
            for name, value in evaluation.metrics(weights, names).items():
                found[model][name][draw] = value
    return found


def interval(values: Floats, confidence: float = 0.95) -> Interval:
    """The percentile interval of bootstrapped values, draws with a single class left out."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))


def best_threshold(labels: Booleans, scores: Floats) -> float:
    """The score from which on to predict the positive class, for the best balanced accuracy.

    Balanced accuracy, the mean of both classes' recall, suits classes of unequal size when
    both kinds of error matter alike. The threshold lies midway between the two scores that it
    separates, so that rounding of a score does not change a decision. Choose it on rows that the
    model was neither fitted nor is validated on.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, positive = scores[order], labels[order]
    ends = np.flatnonzero(np.diff(ranked))
    if not len(ends):
        return float(ranked[0])
    recall = np.cumsum(positive)[ends] / positive.sum()
    false_alarm = np.cumsum(~positive)[ends] / (~positive).sum()
    best = ends[np.argmax(recall - false_alarm)]
    return float((ranked[best] + ranked[best + 1]) / 2)


def decision_metrics(labels: Booleans, scores: Floats, threshold: float) -> dict[str, float]:
    """Balanced accuracy, precision, recall and predicted share at `score >= threshold`.

    Precision is 0 when nothing is predicted positive.
    """
    predicted = scores >= threshold
    hits = float((predicted & labels).sum())
    recall = hits / float(labels.sum())
    specificity = float((~predicted & ~labels).sum()) / float((~labels).sum())
    return {
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": hits / max(float(predicted.sum()), 1.0),
        "recall": recall,
        "predicted_share": float(predicted.mean()),
    }
