"""Metrics of a regressor's values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from espalier.policies import METRICS
from espalier.training.binary import Floats


class RegressionEvaluation:
    """One model's values against the labels, ready to be weighted many times."""

    def __init__(self, labels: Floats, scores: Floats) -> None:
        """Sort the rows by their error; `labels` and `scores` are [n]."""
        self._labels = labels
        error = np.abs(scores - labels)
        self._order = np.argsort(error, kind="stable")
        self._error, self._squared = error, error**2

    def metrics(
        self, weights: Floats, names: Sequence[str] = METRICS["regression"]
    ) -> dict[str, float]:
        """The named metrics with row weights [n].

        `rmse` is the root of the mean squared error, `mae` the mean and `median_absolute_error` the
        median of the absolute one, in the label's unit. `r2` is the share of the labels' variance
        that is explained; it is NaN when all labels with a weight are equal.
        """
        total = weights.sum()
        found: dict[str, float] = {}
        if not {"r2", "rmse"}.isdisjoint(names):
            squared = float(weights @ self._squared)
            found["rmse"] = float(np.sqrt(squared / total))
            if "r2" in names:
                from_mean = self._labels - weights @ self._labels / total
                spread = float(weights @ from_mean**2)
                found["r2"] = 1 - squared / spread if spread > 0 else float("nan")
        if "mae" in names:
            found["mae"] = float(weights @ self._error / total)
        if "median_absolute_error" in names:
            found["median_absolute_error"] = self._median(weights, total)
        return {name: found[name] for name in names}

    def _median(self, weights: Floats, total: float) -> float:
        """The median error of rows that stand there as often as their weight says."""
        until = np.cumsum(weights[self._order])
        low = int(np.searchsorted(until, total / 2, side="left"))
        high = int(np.searchsorted(until, total / 2, side="right"))
        return float((self._error[self._order[low]] + self._error[self._order[high]]) / 2)
