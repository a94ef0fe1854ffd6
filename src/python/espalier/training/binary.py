"""A binary classifier's scores: their metrics, the decision threshold and its metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from espalier.policies import METRICS, Decision

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

_BINS = 10
_LIFT_SHARE = 0.1
_BALANCED = Decision()


class BinaryEvaluation:
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
        # The first row of each group of about equal size; equal scores stay together.
        cuts = np.searchsorted(self._ends, np.arange(1, _BINS) * len(ranked) / _BINS - 1)
        self._bins = np.unique(np.concatenate([[0], self._ends[cuts] + 1]))
        self._bins = self._bins[self._bins < len(ranked)]
        self._excess = self._positive - ranked
        truth = labels.astype(np.float64)
        self._squared_error = (scores - truth) ** 2
        # As scikit-learn does, keep the logarithm finite by the precision of the scores' type.
        inside = np.clip(scores, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps)
        self._log_loss = -np.where(labels, np.log(inside), np.log1p(-inside))

    def metrics(
        self, weights: Floats, names: Sequence[str] = METRICS["binary"]
    ) -> dict[str, float]:
        """The named metrics with row weights [n].

        `roc_auc` is the probability that a positive row scores above a negative one, ties counting
        half (Mann and Whitney). `pr_auc` is the average precision, the sum over thresholds of
        precision times the recall gained, without interpolation. `brier` is the mean squared
        error, `log_loss` the mean negative log-likelihood. `calibration_error` is the expected
        one over ten groups of equal size by score: the mean distance between a group's mean score
        and its share of positives (Naeini et al. 2015). `lift_10` is the share of positives among
        the tenth of the rows with the highest scores, as a multiple of their share among all. The
        ranking metrics are NaN when a class that they need has no weight.
        """
        found: dict[str, float] = {}
        total = weights.sum()
        if not {"roc_auc", "pr_auc", "lift_10", "calibration_error"}.isdisjoint(names):
            ranked = weights[self._order]
            found |= self._ranking(ranked, total, names)
            if "calibration_error" in names:
                gaps = np.add.reduceat(ranked * self._excess, self._bins)
                found["calibration_error"] = float(np.abs(gaps).sum() / total)
        if "brier" in names:
            found["brier"] = float(weights @ self._squared_error / total)
        if "log_loss" in names:
            found["log_loss"] = float(weights @ self._log_loss / total)
        return {name: found[name] for name in names}

    def _ranking(self, ranked: Floats, total: float, names: Sequence[str]) -> dict[str, float]:
        found: dict[str, float] = {}
        positive = np.cumsum(ranked * self._positive)
        every = np.cumsum(ranked)
        if len(self._ends) < len(ranked):
            positive, every = positive[self._ends], every[self._ends]
        gained = np.diff(positive, prepend=0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            if "roc_auc" in names:
                negative = every - positive
                lower = negative[-1] - negative + np.diff(negative, prepend=0.0) / 2
                found["roc_auc"] = float(gained @ lower / (positive[-1] * negative[-1]))
            if "pr_auc" in names:
                # A leading group without weight has no precision, and gains no recall either.
                precision = np.divide(positive, every, out=np.zeros_like(every), where=every > 0)
                found["pr_auc"] = float(gained @ precision / positive[-1])
            if "lift_10" in names:
                # Of the group of equal scores at the edge as large a part as still fits.
                wanted = _LIFT_SHARE * total
                place = int(np.searchsorted(every, wanted))
                before, below = (every[place - 1], positive[place - 1]) if place else (0.0, 0.0)
                part = (wanted - before) / (every[place] - before)
                captured = below + part * gained[place]
                found["lift_10"] = float(captured / (_LIFT_SHARE * positive[-1]))
        return found


def best_threshold(labels: Booleans, scores: Floats, decision: Decision = _BALANCED) -> float:
    """The score from which on to predict the positive class, the best for the objective.

    Balanced accuracy, the mean of both classes' recall, suits classes of unequal size when
    both kinds of error matter alike; f1 is that of the positive class; cost is the declared one.
    The threshold lies midway between the two scores that it separates, so that rounding of a score
    does not change a decision. Choose it on rows that the model was neither fitted nor is
    validated on.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, positive = scores[order], labels[order]
    ends = np.flatnonzero(np.diff(ranked))
    if not len(ends):
        return float(ranked[0])
    edges = (ranked[ends] + ranked[ends + 1]) / 2
    hits = np.cumsum(positive)[ends].astype(np.float64)
    alarms = np.cumsum(~positive)[ends].astype(np.float64)
    positives, negatives = float(positive.sum()), float((~positive).sum())
    # All rows positive, and none, are decisions too.
    edges = np.concatenate([edges, [ranked[-1] / 2, (1 + ranked[0]) / 2]])
    hits, alarms = np.append(hits, [positives, 0.0]), np.append(alarms, [negatives, 0.0])
    if decision.objective == "f1":
        worth = 2 * hits / (hits + alarms + positives)
    elif decision.objective == "cost":
        worth = -(decision.false_positive * alarms + decision.false_negative * (positives - hits))
    else:
        worth = hits / positives - alarms / negatives
    return float(edges[np.argmax(worth)])


def decision_metrics(labels: Booleans, scores: Floats, threshold: float) -> dict[str, float]:
    """Balanced accuracy, f1, precision, recall and predicted share at `score >= threshold`.

    Precision is 0 when nothing is predicted positive.
    """
    predicted = scores >= threshold
    hits, chosen, positives = (
        float(rows.sum()) for rows in (predicted & labels, predicted, labels)
    )
    recall = hits / positives
    specificity = float((~predicted & ~labels).sum()) / float((~labels).sum())
    return {
        "balanced_accuracy": (recall + specificity) / 2,
        "f1": 2 * hits / (chosen + positives),
        "precision": hits / max(chosen, 1.0),
        "recall": recall,
        "predicted_share": float(predicted.mean()),
    }
