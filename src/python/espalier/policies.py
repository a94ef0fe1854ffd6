"""How a product is trained, judged, watched, retrained and served, as frozen values.

Each has defaults that suit most products. Nothing here touches a library or a database.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from espalier.errors import ConfigurationError

Setting = str | int | float | bool | None

# The metrics of each task, the gate's own first; espalier.training.evaluate says what they are.
METRICS = {
    "binary": ("roc_auc", "pr_auc", "brier", "log_loss", "calibration_error", "lift_10"),
    "multiclass": (*("roc_auc", "accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier"),),
    "regression": ("r2", "rmse", "mae", "median_absolute_error"),
}


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Which labels a model is validated on; it is trained on none of them.

    By "time": those of the newest label time. By "entity", for data of one snapshot: of the newest
    label time those of about a `share` of the entities, which a seeded hash of their key chooses,
    so that an entity stays on its side when others come. Nothing older of these is trained on.
    """

    by: Literal["time", "entity"] = "time"
    share: float = 0.25

    def __post_init__(self) -> None:
        """Refuse other words, and a share that leaves nothing on one side."""
        if self.by not in ("time", "entity"):
            raise ConfigurationError(f"validation by {self.by!r}", fix="say time or entity")
        if not 0 < self.share < 1:
            raise ConfigurationError(
                f"validation has a share of {self.share:g}", fix="declare one above 0 and below 1"
            )


@dataclass(frozen=True, kw_only=True)
class Search:
    """Settings of the estimator to choose from.

    `space` names arguments of the estimator's function with the values to try, the default first.
    All combinations are tried when they are no more than `trials`; otherwise the defaults and a
    seeded draw of the others. They are compared by the gate's metric over the newest `folds` label
    times within the training rows, each predicted by older labels alone; with validation by entity
    over so many parts of the entities, at least two, each predicted by the others.
    """

    space: tuple[tuple[str, tuple[Setting, ...]], ...] = ()
    trials: int = 8
    folds: int = 3

    def __post_init__(self) -> None:
        """Refuse a space that leaves nothing to choose from."""
        if self.trials < 1 or self.folds < 1:
            raise ConfigurationError("a search takes at least one trial and one fold")
        for name, values in self.space:
            if not values or name == "seed":
                raise ConfigurationError(
                    f"search space {name!r} with {len(values)} values",
                    fix="give each setting its values; the seed is the project's",
                )


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the threshold on the score is chosen for.

    `objective` is "balanced_accuracy", "f1" of the positive class, or "cost": the mean cost of a
    decision, by `false_positive` and `false_negative`, the costs of a needless and of a missed
    positive prediction in any one unit.
    """

    objective: str = "balanced_accuracy"
    false_positive: float = 1.0
    false_negative: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an objective that is none."""
        if self.objective not in ("balanced_accuracy", "f1", "cost"):
            raise ConfigurationError(
                f"decision objective {self.objective!r}", fix="use balanced_accuracy, f1 or cost"
            )
        if min(self.false_positive, self.false_negative) <= 0:
            raise ConfigurationError("the costs of a decision must be above 0")


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A segment: the rows whose `feature` is from `minimum` on and below `maximum`.

    A row without the feature is in no segment of it.
    """

    name: str
    feature: str
    minimum: float = -math.inf
    maximum: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a model must show before it is promoted.

    `metric` is the main one, of `METRICS`; empty means ROC-AUC, for a number R². A challenger may be
    worse than the champion, or for the first model than the baseline, by no more than `margin`, in
    the metric's own unit; the paired bootstrap interval at `confidence` decides. On none of the
    `slices` (by name; None: all that the project declares) may it be worse by more than
    `slice_margin`. A ROC-AUC, for a number an R², above `suspicious` is taken for a leak of the
    label. One row must be scored within `max_latency_ms` (median). `online_sample` entities'
    features are compared between the online store and the history.
    """

    metric: str = ""
    margin: float = 0.01
    confidence: float = 0.95
    slice_margin: float = 0.05
    slices: tuple[str, ...] | None = None
    suspicious: float = 0.99
    max_latency_ms: float = 10.0
    online_sample: int = 200


# The distance from which on a column counts as drifted, by method; espalier.monitoring says why.
DRIFT_METHODS = {"wasserstein": 0.2, "psi": 0.2, "ks": 0.1}


@dataclass(frozen=True, kw_only=True)
class ColumnMonitoring:
    """How one feature is watched where it is not as the others.

    `method` and `threshold` replace the project's. A feature that grows with time by construction,
    such as the days since the first order, is a `trend`: its drift is reported and not counted.
    """

    name: str
    method: str | None = None
    threshold: float | None = None
    trend: bool = False


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """What counts as drift, and what is looked at.

    A feature drifted when the distance of its values by `method` reached `threshold` (None: the
    method's own), or its share of nulls moved by `null_share`. A window, which is a day's check,
    drifted when that is so for `share` of the features that are no trend, or the label's distance
    reached `target_threshold` (None: 0.05 of the Jensen-Shannon distance of classes; a number's is
    that of a feature by "wasserstein"). The verdict is drift when `windows_k` of the last
    `windows_n` windows of the same model drifted.

    A prediction belongs to a label when it was the entity's last in the `served_within` after the
    label's time. `sample` predictions are recomputed from the history.
    """

    method: str = "wasserstein"
    threshold: float | None = None
    columns: tuple[ColumnMonitoring, ...] = ()
    null_share: float = 0.1
    share: float = 0.5
    target_threshold: float | None = None
    windows_k: int = 2
    windows_n: int = 3
    served_within: timedelta = timedelta(days=28)
    sample: int = 1000

    def __post_init__(self) -> None:
        """Refuse methods and windows that are none."""
        for method in (self.method, *(c.method for c in self.columns if c.method is not None)):
            if method not in DRIFT_METHODS:
                raise ConfigurationError(
                    f"drift method {method!r}", fix=f"use {', '.join(sorted(DRIFT_METHODS))}"
                )
        thresholds = [self.threshold, *(c.threshold for c in self.columns)]
        if any(t is not None and t <= 0 for t in thresholds) or not 0 < self.share <= 1:
            raise ConfigurationError(
                "a drift threshold is not above 0, or the share of features not in 0 to 1"
            )
        if not 1 <= self.windows_k <= self.windows_n:
            raise ConfigurationError(
                f"drift in {self.windows_k} of {self.windows_n} windows",
                fix="ask for at least one, and for no more than there are",
            )

    def of(self, name: str) -> ColumnMonitoring:
        """How a feature is watched, its method and threshold filled in."""
        own = next((c for c in self.columns if c.name == name), ColumnMonitoring(name=name))
        method = own.method or self.method
        # The project's threshold is a distance of the project's method.
        shared = self.threshold if method == self.method else None
        threshold = own.threshold or shared or DRIFT_METHODS[method]
        return ColumnMonitoring(name=name, method=method, threshold=threshold, trend=own.trend)


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """When monitoring has a new model trained.

    That is when the drift verdict says so, or when live performance is lost: the whole interval of
    the gate's metric, as served, is below the champion's value in validation by more than
    `performance_margin`. Two trainings of that kind are `cooldown` apart, and there are at most
    `per_month` a calendar month.
    """

    performance_margin: float = 0.02
    cooldown: timedelta = timedelta(days=28)
    per_month: int = 1

    def __post_init__(self) -> None:
        """Refuse limits that are none."""
        if self.performance_margin < 0 or self.cooldown < timedelta(0) or self.per_month < 1:
            raise ConfigurationError(
                "retraining has a margin or cool-down below 0, or less than one training a month"
            )


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What the prediction server does about features that are not as they should be.

    Each is "refuse" (no prediction; an error for a single entity, a status in a batch), "default"
    (`default_score` is the answer, the model is not asked) or "predict" (the model is asked with
    what there is, null being NaN). The response's status and source tell which it was.

    Attributes:
        missing_entity: There is no feature row; "predict" asks the model with nulls alone.
        missing_feature: A feature is null whose column is not declared nullable.
        stale_feature: The row is older than the view's time to live.
        default_score: The score of "default": a probability, or the value where a number is
            predicted. There is none with several classes.
    """

    missing_entity: Literal["refuse", "default", "predict"] = "refuse"
    missing_feature: Literal["refuse", "default", "predict"] = "predict"
    stale_feature: Literal["refuse", "default", "predict"] = "predict"
    default_score: float | None = None

    def __post_init__(self) -> None:
        """Refuse other words, and a default that is not there."""
        for name in ("missing_entity", "missing_feature", "stale_feature"):
            policy = getattr(self, name)
            if policy not in ("refuse", "default", "predict"):
                raise ConfigurationError(
                    f"serving policy {name} is {policy!r}", fix="say refuse, default or predict"
                )
            if policy == "default" and self.default_score is None:
                raise ConfigurationError(
                    f"serving policy {name} is default without a default_score",
                    fix="declare Serving(default_score=...)",
                )
        if self.default_score is not None and not math.isfinite(self.default_score):
            raise ConfigurationError(f"default_score {self.default_score:g} is no number")
