"""Compares two models on the same rows by the paired bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

from espalier.errors import ConfigurationError
from espalier.policies import Gate
from espalier.training import evaluate
from espalier.training.evaluate import HIGHER_IS_BETTER, Booleans, Floats


@dataclass(frozen=True)
class Comparison:
    """A metric of a challenger and an opponent, and the difference with its interval."""

    metric: str
    challenger: float
    opponent: float
    difference: float
    low: float
    high: float
    confidence: float
    rows: int
    draws: int

    def told(self, against: str) -> str:
        """All of it on one line."""
        return (
            f"{self.metric} {self.challenger:.4f} against {self.opponent:.4f} of {against} on "
            f"{self.rows} rows: difference {self.difference:+.4f}, {self.confidence:.0%} interval "
            f"{self.low:+.4f} to {self.high:+.4f}"
        )


def compare(
    labels: Booleans,
    challenger: Floats,
    opponent: Floats,
    *,
    gate: Gate,
    seed: int,
    draws: int = evaluate.DRAWS,
) -> Comparison:
    """The difference of the gate's metric, challenger minus opponent.

    Both score the same rows, and both are resampled by the same draws, so what rows have in common
    cancels out. The interval is the percentile interval of the differences (Efron and Tibshirani
    1993, chapter 13); its ends are quantiles of `draws` resamples, so the seed decides their last
    digit.

    Args:
        labels: [n], of rows that neither model was trained on.
        challenger: The new model's scores [n].
        opponent: The champion's or the baseline's scores [n].
        gate: The project's declaration.
        seed: Of the bootstrap.
        draws: How many times to resample.

    Raises:
        ConfigurationError: the gate's metric is not one of which a higher value is better.
    """
    metric = gate.metric
    if metric not in HIGHER_IS_BETTER:
        raise ConfigurationError(
            f"a gate cannot use metric {metric!r}", fix=f"use {' or '.join(HIGHER_IS_BETTER)}"
        )
    scores = {"challenger": challenger, "opponent": opponent}
    drawn = evaluate.bootstrap(labels, scores, names=[metric], seed=seed, draws=draws)
    interval = evaluate.interval(
        drawn["challenger"][metric] - drawn["opponent"][metric], gate.confidence
    )
    values = {name: evaluate.metrics(labels, rows)[metric] for name, rows in scores.items()}
    return Comparison(
        metric=metric,
        challenger=values["challenger"],
        opponent=values["opponent"],
        difference=values["challenger"] - values["opponent"],
        low=interval.low,
        high=interval.high,
        confidence=gate.confidence,
        rows=len(labels),
        draws=draws,
    )
