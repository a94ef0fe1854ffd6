"""Decides whether a challenger may replace the champion."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from espalier.errors import ConfigurationError
from espalier.project import Gate
from espalier.training import evaluate
from espalier.training.evaluate import HIGHER_IS_BETTER, Booleans, Floats


@dataclass(frozen=True)
class Verdict:
    """The gate's decision and what it rests on.

    `difference` is the metric's value of the challenger minus the opponent's, `low` and `high` its
    paired bootstrap interval. `opponent` says whom the challenger was compared with.
    """

    accepted: bool
    opponent: str
    metric: str
    challenger_value: float
    opponent_value: float
    difference: float
    low: float
    high: float
    margin: float
    confidence: float
    rows: int
    draws: int

    @property
    def reason(self) -> str:
        """The decision on one line."""
        return (
            f"{self.metric} {self.challenger_value:.4f} against {self.opponent_value:.4f} of "
            f"{self.opponent} on {self.rows} rows: difference {self.difference:+.4f}, "
            f"{self.confidence:.0%} interval {self.low:+.4f} to {self.high:+.4f}, "
            f"{'not below' if self.accepted else 'below'} the margin of {-self.margin:+.4f}"
        )

    def evidence(self) -> dict[str, object]:
        """The decision as JSON values, for the ledger."""
        return asdict(self)


def decide(
    labels: Booleans,
    challenger: Floats,
    opponent: Floats,
    *,
    gate: Gate,
    against: str,
    seed: int,
    draws: int = evaluate.DRAWS,
) -> Verdict:
    """Accept the challenger unless it may be worse than the opponent by more than the margin.

    Both score the same rows, and both are resampled by the same draws, so what rows have in common
    cancels out. The challenger is refused when the lower end of the difference's interval is below
    minus the margin (a non-inferiority test).

    Args:
        labels: [n], of rows that neither model was trained on.
        challenger: The new model's scores [n].
        opponent: The champion's or the baseline's scores [n].
        gate: The project's declaration.
        against: Whom `opponent` is the score of.
        seed: Of the bootstrap.
        draws: How many times to resample.

    Raises:
        ConfigurationError: the gate's metric is not one of which a higher value is better.
    """
    if gate.metric not in HIGHER_IS_BETTER:
        raise ConfigurationError(
            f"a gate cannot use metric {gate.metric!r}", fix=f"use {' or '.join(HIGHER_IS_BETTER)}"
        )
    scores = {"challenger": challenger, "opponent": opponent}
    drawn = evaluate.bootstrap(labels, scores, names=[gate.metric], seed=seed, draws=draws)
    differences = drawn["challenger"][gate.metric] - drawn["opponent"][gate.metric]
    interval = evaluate.interval(differences, gate.confidence)
    values = {name: evaluate.metrics(labels, rows)[gate.metric] for name, rows in scores.items()}
    return Verdict(
        accepted=interval.low >= -gate.margin,
        opponent=against,
        metric=gate.metric,
        challenger_value=values["challenger"],
        opponent_value=values["opponent"],
        difference=values["challenger"] - values["opponent"],
        low=interval.low,
        high=interval.high,
        margin=gate.margin,
        confidence=gate.confidence,
        rows=len(labels),
        draws=draws,
    )
