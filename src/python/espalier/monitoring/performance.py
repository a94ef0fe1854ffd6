"""What live performance is, as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from espalier.training.evaluate import Interval


@dataclass(frozen=True)
class Measured:
    """A metric's value and its bootstrap interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Bin:
    """A group of answers of about equal scores.

    `positive_share` is how often the positive class came true, of several classes the most probable
    one, whose probability is the score then; of numbers it is the mean label.
    """

    rows: int
    mean_score: float
    positive_share: float


@dataclass(frozen=True, kw_only=True)
class Performance:
    """One version in one role against the labels of one time.

    `rows` labels were answered, `positives` of them positive (None where labels are not true or
    false); for `unserved` this version served nothing in time.
    """

    label_time: date
    model_version: str
    role: str
    rows: int
    positives: int | None
    unserved: int
    metrics: dict[str, Measured]
    calibration: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True)
class ShadowComparison:
    """A champion and a shadow on the same rows; `differences` are shadow less champion, paired."""

    label_time: date
    champion: str
    shadow: str
    rows: int
    champion_metrics: dict[str, float]
    shadow_metrics: dict[str, float]
    differences: dict[str, Measured]


@dataclass(frozen=True)
class Live:
    """What a run measured, oldest label time first; `nothing` says why it measured nothing."""

    run_id: str
    performances: tuple[Performance, ...]
    comparisons: tuple[ShadowComparison, ...]
    nothing: str = ""

    @property
    def newest(self) -> Performance | None:
        """The champion role's measurement of the newest label time with the most answers."""
        champions = [p for p in self.performances if p.role == "champion"]
        return max(champions, key=lambda p: (p.label_time, p.rows), default=None)
