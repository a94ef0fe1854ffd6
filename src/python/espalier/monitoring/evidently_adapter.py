"""The one module that imports Evidently: distributions in, frozen drift scores and reports out.

Methods. A p-value answers "is there any difference at all", and with thousands of rows there always
is: every column would be flagged every month. Distances answer "how large is it", so they are used:

- `wasserstein`, the default for features: the Wasserstein distance divided by the reference's
  standard deviation. It needs no bins, which matters as amounts are heavy-tailed. For a pure shift
  it equals Cohen's d, whose conventional "small effect" of 0.2 is the threshold; two samples of one
  population stay below it from some hundred rows on.
- `psi` and `ks`: see `distances`; thresholds 0.2 and 0.1. The first sees a change of shape that
  moves no mass far, the second does not care how far mass moved.
- label of classes: the Jensen-Shannon distance (natural logarithm) of the classes' shares. It is
  symmetric and stays finite when a class is absent, as PSI does not. For two shares near 0.8 the
  threshold of 0.05 is a change of about 5 points in 100. Each further class adds to what chance
  alone makes of it, so with more than two the threshold grows as the labels are fewer.
- label of numbers: as a feature, by `wasserstein` and its 0.2.
- nulls: these distances look at the values that are there, so a column also drifts when its share
  of nulls moved by the declared amount. Evidently refuses columns without any value; they never
  get to it.

Drift is computed on sketches (see `sketch`), so Evidently's time does not grow with the rows; data
quality counts all of them. Evidently's library part sends no telemetry (its web UI and collector
do; neither is started) and nothing here writes a file; a test watches both. Importing Evidently
takes seconds, therefore it is imported by the functions.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from espalier.contract import Column
from espalier.errors import BadData, TooFewRows
from espalier.monitoring import distances
from espalier.monitoring.sketch import Sketch, as_frame
from espalier.monitoring.target import TargetLabels, rule_of

NULL_SHARE_METHOD = "null share"
# Below this many rows on a side, chance alone moves single columns past the thresholds.
MINIMUM_ROWS = 200
# So many rows stand for the labels, whose two shares are all that counts.
_LABEL_ROWS = 10_000
# Our distances' names in Evidently's registry.
_PREFIX = "espalier_"
# Project names hold no blank, so this one is free.
_TARGET = "target label"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a column is compared: it drifts at `threshold` by `method` or `null_share` more nulls."""

    method: str
    threshold: float
    null_share: float


@dataclass(frozen=True, kw_only=True)
class ColumnDrift:
    """How far one column moved: `drifted` is `score >= threshold` in the measure of `method`."""

    method: str
    score: float
    threshold: float
    drifted: bool


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a comparison found, with Evidently's own page and values.

    `html` needs nothing from the network. `report` is Evidently's JSON (`metrics`, `tests`) with
    null for what is not a number.
    """

    columns: Mapping[str, ColumnDrift]
    target: ColumnDrift | None
    html: str
    report: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ColumnQuality:
    """Of `rows` values of a column, how many are missing or outside of what is declared."""

    rows: int
    missing: int
    out_of_range: int
    failed: bool


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What a look at the rows found, with Evidently's own page and values."""

    columns: Mapping[str, ColumnQuality]
    html: str
    report: Mapping[str, Any]


def compare(
    reference: Mapping[str, Sketch],
    current: Mapping[str, Sketch],
    *,
    rules: Mapping[str, Rule],
    labels: tuple[TargetLabels, TargetLabels] | None = None,
    target_threshold: float | None = None,
) -> Comparison:
    """Compare columns' distributions, and two sets of labels when they are given.

    Args:
        reference: The distributions to compare with, by column.
        current: Those in question, of the same columns.
        rules: The columns to compare, and how.
        labels: Reference labels and current labels, of one kind; their rows need not be those of
            the columns.
        target_threshold: The distance of the labels that counts as drift, of more than two classes
            beyond what chance adds; None: the default of their kind, see `target`.

    Raises:
        TooFewRows: a side has fewer than `MINIMUM_ROWS` rows or labels.
        BadData: a side lacks a column.
    """
    for side, name in ((reference, "reference"), (current, "current")):
        missing = [column for column in rules if column not in side]
        if missing:
            raise BadData(f"the {name} rows lack the columns {', '.join(missing)}")
        _enough(min(side[column].rows for column in rules), f"{name} rows")
    for label, name in zip(labels or (), ("reference", "current"), strict=False):
        _enough(label.rows, f"{name} labels")
    # Evidently raises on a column without a value.
    shared = [c for c in rules if len(reference[c].quantiles) and len(current[c].quantiles)]
    rule = None
    if labels is not None:
        method, threshold = rule_of(labels, target_threshold)
        rule = Rule(method=method, threshold=threshold, null_share=1.0)
    spreads = {name: reference[name].spread for name in shared}
    if labels is not None and isinstance(labels[0], Sketch):
        spreads[_TARGET] = labels[0].spread
    _register_distances(spreads)
    scores, target, html, report = _drift(
        as_frame({name: reference[name] for name in shared}),
        as_frame({name: current[name] for name in shared}),
        {name: rules[name] for name in shared},
        labels,
        rule,
    )
    return Comparison(
        columns={
            name: _column(
                rule, scores.get(name), current[name].null_share - reference[name].null_share
            )
            for name, rule in rules.items()
        },
        target=None
        if target is None or rule is None
        else _judge(rule.method, target, rule.threshold),
        html=html,
        report=report,
    )


def quality(frame: pd.DataFrame, columns: Sequence[Column]) -> Quality:
    """Count missing and out-of-range values of numeric columns, in every row.

    A column fails when a value is missing that is declared not to be, or one is out of range.

    Args:
        frame: The rows, NaN for null.
        columns: Their declaration; `minimum` and `maximum` are inclusive.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import MissingValueCount, OutRangeValueCount

    names = [column.name for column in columns]
    metrics: list[Any] = []
    for column in columns:
        metrics.append(MissingValueCount(column=column.name))
        if (column.minimum, column.maximum) != (None, None) and frame[column.name].notna().any():
            low, high = (
                bound if bound is not None else infinity
                for bound, infinity in (
                    (column.minimum, np.finfo(np.float64).min),
                    (column.maximum, np.finfo(np.float64).max),
                )
            )
            metrics.append(OutRangeValueCount(column=column.name, left=low, right=high))
    with warnings.catch_warnings():
        # Pandas on how Evidently pads its tables.
        warnings.simplefilter("ignore", FutureWarning)
        run = Report(metrics).run(
            Dataset.from_pandas(
                frame[names], data_definition=DataDefinition(numerical_columns=names)
            ),
            None,
        )
        html = run.get_html_str(as_iframe=False)
        report = _without_nan(json.loads(run.json()))
    counts: dict[tuple[str, str], int] = {}
    for metric in report["metrics"]:
        kind = metric["config"]["type"].rpartition(":")[2]
        counts[kind, metric["config"]["column"]] = int(metric["value"]["count"])
    found = {}
    for column in columns:
        missing = counts["MissingValueCount", column.name]
        outside = counts.get(("OutRangeValueCount", column.name), 0)
        found[column.name] = ColumnQuality(
            rows=len(frame),
            missing=missing,
            out_of_range=outside,
            failed=outside > 0 or (missing > 0 and not column.nullable),
        )
    return Quality(columns=found, html=html, report=report)


def _column(rule: Rule, distance: float | None, nulls_moved: float) -> ColumnDrift:
    """The verdict by the distance, unless only the share of nulls moved."""
    nulls = _judge(NULL_SHARE_METHOD, abs(nulls_moved), rule.null_share)
    if distance is None:
        return nulls
    values = _judge(rule.method, distance, rule.threshold)
    return nulls if nulls.drifted and not values.drifted else values


def _judge(method: str, score: float, threshold: float) -> ColumnDrift:
    return ColumnDrift(method=method, score=score, threshold=threshold, drifted=score >= threshold)


def _enough(rows: int, what: str) -> None:
    if rows < MINIMUM_ROWS:
        raise TooFewRows(
            f"{rows} {what} are too few to tell drift from chance",
            fix=f"at least {MINIMUM_ROWS} are needed",
        )


def _drift(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    rules: Mapping[str, Rule],
    labels: tuple[TargetLabels, TargetLabels] | None,
    target_rule: Rule | None,
) -> tuple[dict[str, float], float | None, str, dict[str, Any]]:
    """Evidently's score of each column and of the labels, its page and its values."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    # Each metric by itself: the preset computes every column three times.
    metrics = [
        ValueDrift(
            column=name,
            method=_PREFIX + rule.method,
            threshold=rule.threshold,
        )
        for name, rule in rules.items()
    ]
    numbers = list(rules)
    classes: list[str] = []
    if labels is not None and target_rule is not None:
        # Side by side; Evidently leaves out the nulls that fill up the shorter columns.
        reference, current = (
            pd.concat([frame, _label_column(side).rename(_TARGET)], axis=1)
            for frame, side in zip((reference, current), labels, strict=True)
        )
        is_number = isinstance(labels[0], Sketch)
        (numbers if is_number else classes).append(_TARGET)
        method = (_PREFIX if is_number else "") + target_rule.method
        metrics.append(ValueDrift(column=_TARGET, method=method, threshold=target_rule.threshold))
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=classes)
    with warnings.catch_warnings():
        # NumPy on the correlation of a constant column; it is not part of the result.
        warnings.simplefilter("ignore", RuntimeWarning)
        run = Report(metrics, include_tests=True).run(
            Dataset.from_pandas(current, data_definition=definition),
            Dataset.from_pandas(reference, data_definition=definition),
        )
        html = run.get_html_str(as_iframe=False)
        report = _without_nan(json.loads(run.json()))
    scores = {m["config"]["column"]: float(m["value"]) for m in report["metrics"]}
    return scores, scores.pop(_TARGET, None), html, report


def _label_column(labels: TargetLabels) -> pd.Series[Any]:
    """So many labels as stand for all of them, each class with its share."""
    if isinstance(labels, Sketch):
        return as_frame({_TARGET: labels})[_TARGET]
    rows = min(labels.rows, _LABEL_ROWS)
    column: list[str] = []
    seen = 0
    for name, count in labels.counts.items():
        seen += count
        column += [name] * (round(rows * (seen / labels.rows)) - len(column))
    return pd.Series(column, dtype="object")


def _register_distances(spreads: Mapping[str, float]) -> None:
    """Make our distances known to Evidently, with the columns' spreads; the last call counts."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def wasserstein(reference: Any, current: Any) -> float:
        return distances.wasserstein(_values(reference), _values(current), spreads[reference.name])

    def psi(reference: Any, current: Any) -> float:
        return distances.psi(_values(reference), _values(current))

    def ks(reference: Any, current: Any) -> float:
        return distances.kolmogorov_smirnov(_values(reference), _values(current))

    for distance, shown in (
        (wasserstein, "Wasserstein distance (normed)"),
        (psi, "PSI over the reference's tenths"),
        (ks, "Kolmogorov-Smirnov distance"),
    ):

        def judge(
            reference: Any, current: Any, _kind: Any, threshold: float, *, measure: Any = distance
        ) -> tuple[float, bool]:
            score = measure(reference, current)
            return score, score >= threshold

        register_stattest(
            StatTest(
                _PREFIX + distance.__name__, shown, allowed_feature_types=[ColumnType.Numerical]
            ),
            judge,
        )


def _values(column: Any) -> distances.Floats:
    return np.asarray(column, dtype=np.float64)


def _without_nan(value: Any) -> Any:
    """The JSON value with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
