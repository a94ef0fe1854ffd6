"""Compares two models on the same rows by the paired bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

from espalier.policies import Gate
from espalier.project import Task
from espalier.training import evaluate
from espalier.training.evaluate import HIGHER_IS_BETTER, Floats, Labels


@dataclass(frozen=True)
class Comparison:
    """A metric of a challenger and an opponent, and the difference with its interval.

    The difference is above 0 when the challenger is better, also where a lower value is.
    """

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
        lower = "" if self.metric in HIGHER_IS_BETTER else " (lower is better)"
        return (
            f"{self.metric}{lower} {self.challenger:.4f} against {self.opponent:.4f} of {against} on "
            f"{self.rows} rows: difference {self.difference:+.4f}, {self.confidence:.0%} interval "
            f"{self.low:+.4f} to {self.high:+.4f}"
        )


def compare(
    labels: Labels,
    challenger: Floats,
    opponent: Floats,
    *,
    gate: Gate,
    seed: int,
    draws: int = evaluate.DRAWS,
    task: Task = Task.BINARY,
) -> Comparison:
    """By how much the challenger is better in the gate's metric than the opponent.

    Both score the same rows, and both are resampled by the same draws, so what rows have in common
    cancels out. The interval is the percentile interval of the differences (Efron and Tibshirani
    1993, chapter 13); its ends are quantiles of `draws` resamples, so the seed decides their last
    digit.

    Args:
        labels: Of rows that neither model was trained on; they and scores as in
            `evaluate.evaluation`.
        challenger: The new model's scores.
        opponent: The champion's or the baseline's scores.
        gate: The project's declaration.
        seed: Of the bootstrap.
        draws: How many times to resample.
        task: What is predicted.
    """
    metric = gate.metric or evaluate.main_metric(task)
    scores = {"challenger": challenger, "opponent": opponent}
    drawn = evaluate.bootstrap(labels, scores, names=[metric], seed=seed, draws=draws, task=task)
    gains = evaluate.gain(metric, drawn["challenger"][metric], drawn["opponent"][metric])
    interval = evaluate.interval(gains, gate.confidence)
    values = {
        name: evaluate.metrics(labels, rows, task=task)[metric] for name, rows in scores.items()
    }
    return Comparison(
        metric=metric,
        challenger=values["challenger"],
        opponent=values["opponent"],
        difference=evaluate.gain(metric, values["challenger"], values["opponent"]),
        low=interval.low,
        high=interval.high,
        confidence=gate.confidence,
        rows=len(labels),
        draws=draws,
    )
