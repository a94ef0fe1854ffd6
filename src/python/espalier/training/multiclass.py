"""Metrics of a classifier of several classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from espalier.policies import METRICS
from espalier.training.binary import BinaryEvaluation, Floats


class MulticlassEvaluation:
    """One model's probabilities against the labels, ready to be weighted many times."""

    def __init__(self, labels: npt.NDArray[np.int64], scores: Floats) -> None:
        """Prepare; `labels` [n] are places of classes, `scores` [n, k] their probabilities."""
        self._count = scores.shape[1]
        predicted = scores.argmax(axis=1)
        # A row's cell in the matrix of true and predicted classes.
        self._cells = labels * self._count + predicted
        rows = np.arange(len(labels))
        truth = np.zeros_like(scores)
        truth[rows, labels] = 1.0
        self._squared_error = ((scores - truth) ** 2).sum(axis=1)
        # As scikit-learn does, keep the logarithm finite by the precision of the scores' type.
        epsilon = np.finfo(np.float64).eps
        self._log_loss = -np.log(np.clip(scores[rows, labels], epsilon, 1 - epsilon))
        self._one_against_rest = [
            BinaryEvaluation(labels == place, scores[:, place]) for place in range(self._count)
        ]

    def metrics(
        self, weights: Floats, names: Sequence[str] = METRICS["multiclass"]
    ) -> dict[str, float]:
        """The named metrics with row weights [n].

        A row's prediction is its most probable class. `accuracy` is the share of right ones,
        `balanced_accuracy` the mean of the classes' recalls, `macro_f1` the mean of their f1, that
        of a class which neither is nor was predicted left out. `roc_auc` is the mean over classes
        of each one's ROC-AUC against the rest, NaN when a class has no weight. `log_loss` is the
        mean negative log-likelihood, `brier` the mean sum of the squared errors of a row's
        probabilities, 0 to 2.
        """
        found: dict[str, float] = {}
        total = weights.sum()
        if not {"accuracy", "balanced_accuracy", "macro_f1"}.isdisjoint(names):
            found |= self._decisions(weights, total)
        if "roc_auc" in names:
            found["roc_auc"] = float(
                np.mean(
                    [one.metrics(weights, ["roc_auc"])["roc_auc"] for one in self._one_against_rest]
                )
            )
        if "log_loss" in names:
            found["log_loss"] = float(weights @ self._log_loss / total)
        if "brier" in names:
            found["brier"] = float(weights @ self._squared_error / total)
        return {name: found[name] for name in names}

    def _decisions(self, weights: Floats, total: float) -> dict[str, float]:
        size = self._count
        matrix = np.bincount(self._cells, weights, size * size).reshape(size, size)
        hits, true, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
        there, named = true > 0, true + predicted > 0
        return {
            "accuracy": float(hits.sum() / total),
            "balanced_accuracy": float(np.mean(hits[there] / true[there])),
            "macro_f1": float(np.mean(2 * hits[named] / (true + predicted)[named])),
        }


def class_table(
    labels: npt.NDArray[np.int64], scores: Floats, classes: Sequence[str]
) -> list[tuple[str, int, float, float]]:
    """For each class its name, rows, precision and recall; a precision of none predicted is 0."""
    predicted = scores.argmax(axis=1)
    found = []
    for place, name in enumerate(classes):
        true, chosen = labels == place, predicted == place
        hits = float((true & chosen).sum())
        found.append(
            (name, int(true.sum()), hits / max(chosen.sum(), 1), hits / max(true.sum(), 1))
        )
    return found
