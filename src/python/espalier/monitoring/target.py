"""Labels as drift compares them: counts of classes, or the distribution of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from espalier.monitoring.sketch import Sketch
from espalier.policies import DRIFT_METHODS

CLASS_METHOD, NUMBER_METHOD = "jensenshannon", "wasserstein"
CLASS_THRESHOLD = 0.05
# So many of the most frequent classes are told in words.
_TOLD_CLASSES = 5


@dataclass(frozen=True, kw_only=True)
class Labels:
    """So many labels, `positives` of them positive."""

    rows: int
    positives: int

    @property
    def share(self) -> float:
        """The positive ones' share."""
        return self.positives / self.rows

    @property
    def counts(self) -> Mapping[str, int]:
        """How many there are of each class."""
        return {"true": self.positives, "false": self.rows - self.positives}


@dataclass(frozen=True, kw_only=True)
class ClassLabels:
    """Labels of several classes: how many there are of each, by its name."""

    counts: Mapping[str, int]

    @property
    def rows(self) -> int:
        """How many labels there are."""
        return sum(self.counts.values())


# Labels as the task has them; those of numbers are a column as any other.
TargetLabels = Labels | ClassLabels | Sketch


def rule_of(labels: tuple[TargetLabels, TargetLabels], declared: float | None) -> tuple[str, float]:
    """By which method labels are compared, and the distance that counts as drift.

    Of two samples of one population, of n and m labels, the squared Jensen-Shannon distance is
    about 1/8 (1/n + 1/m) times a chi-squared number with a degree of freedom for each class but
    one. So the squared threshold grows by the mean and two standard deviations of what the classes
    beyond the second add by chance alone.
    """
    before, now = labels
    if isinstance(before, Sketch) or isinstance(now, Sketch):
        return NUMBER_METHOD, declared or DRIFT_METHODS[NUMBER_METHOD]
    threshold = declared or CLASS_THRESHOLD
    more = len({**before.counts, **now.counts}) - 2
    if more > 0:
        by_chance = (more + 2 * math.sqrt(2 * more)) / 8 * (1 / before.rows + 1 / now.rows)
        threshold = math.sqrt(threshold**2 + by_chance)
    return CLASS_METHOD, threshold


def told(labels: TargetLabels, *, short: bool = False) -> str:
    """What labels are like, in words or, once that was said, in numbers alone."""
    match labels:
        case Labels():
            said, numbers = "share of positive labels ", f"{labels.share:.3f}"
        case ClassLabels():
            most = sorted(labels.counts.items(), key=lambda item: -item[1])[:_TOLD_CLASSES]
            said = "shares of classes "
            numbers = ", ".join(f"{name} {count / labels.rows:.3f}" for name, count in most)
        case Sketch():
            said, numbers = "median label ", f"{np.median(labels.quantiles):.6g}"
    return numbers if short else said + numbers
