"""The one module that imports Evidently: two frames in, frozen drift scores and a report out.

Methods. A p-value answers "is there any difference at all", and with thousands of rows there always
is: every column would be flagged every month. Distances answer "how large is it", so they are used:

- features: the Wasserstein distance divided by the reference's standard deviation. It needs no
  bins, which matters as Evidently's histograms are equally wide and amounts are heavy-tailed, so
  that nearly all customers would share one bin and PSI or Jensen-Shannon would see nothing. For a
  pure shift it equals Cohen's d, whose conventional "small effect" of 0.2 is the threshold; two
  samples of one population stay below it from some hundred rows on.
- label: the Jensen-Shannon distance (natural logarithm) of the two classes' shares. It is symmetric
  and stays finite when a class is absent, as PSI does not. For shares near 0.8 the threshold of
  0.05 is a change of about 5 points in 100.
- nulls: both distances look at the values that are there, so a column also drifts when its share
  of nulls moved by `NULL_SHARE_THRESHOLD`. Evidently refuses columns without any value; they never
  get to it.

Evidently's library part sends no telemetry (its web UI and collector do; neither is started) and
`compare` writes no file; a test watches both. Importing Evidently takes seconds, therefore it is
imported by the function.
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

from espalier.errors import BadData

FEATURE_METHOD, FEATURE_THRESHOLD = "wasserstein", 0.2
TARGET_METHOD, TARGET_THRESHOLD = "jensenshannon", 0.05
NULL_SHARE_METHOD, NULL_SHARE_THRESHOLD = "null share", 0.1
# Below this many rows on a side, chance alone moves single columns past the thresholds.
MINIMUM_ROWS = 200


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


def compare(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    *,
    columns: Sequence[str],
    labels: tuple[pd.Series[bool], pd.Series[bool]] | None = None,
) -> Comparison:
    """Compare numeric columns of two frames, and two sets of labels when they are given.

    Args:
        reference: The rows to compare with; `columns` are numeric, NaN (or infinite) for null.
        current: The rows in question, with the same columns.
        columns: The columns to compare.
        labels: Reference labels and current labels; their rows need not be those of the frames.

    Raises:
        BadData: a frame has fewer than `MINIMUM_ROWS` rows, lacks a column or has one that is not
            numeric; or labels have fewer than `MINIMUM_ROWS` rows.
    """
    left = _numeric(reference, columns, "reference")
    right = _numeric(current, columns, "current")
    for series, side in zip(labels or (), ("reference", "current"), strict=False):
        _enough(len(series), f"{side} labels")
    # Evidently raises on a column without a value.
    shared = [name for name in columns if left[name].notna().any() and right[name].notna().any()]
    scores, target, html, report = _run(left[shared], right[shared], labels)
    return Comparison(
        columns={
            name: _column(scores.get(name), left[name].isna().mean(), right[name].isna().mean())
            for name in columns
        },
        target=None if target is None else _judge(TARGET_METHOD, target, TARGET_THRESHOLD),
        html=html,
        report=report,
    )


def _column(distance: float | None, null_before: float, null_now: float) -> ColumnDrift:
    """The verdict by the distance, unless only the share of nulls moved."""
    nulls = _judge(NULL_SHARE_METHOD, abs(float(null_now - null_before)), NULL_SHARE_THRESHOLD)
    if distance is None:
        return nulls
    values = _judge(FEATURE_METHOD, distance, FEATURE_THRESHOLD)
    return nulls if nulls.drifted and not values.drifted else values


def _judge(method: str, score: float, threshold: float) -> ColumnDrift:
    return ColumnDrift(method=method, score=score, threshold=threshold, drifted=score >= threshold)


def _numeric(frame: pd.DataFrame, columns: Sequence[str], side: str) -> pd.DataFrame:
    """The columns as float64, NaN for null and infinite, or BadData."""
    _enough(len(frame), f"{side} rows")
    missing = [name for name in columns if name not in frame]
    if missing:
        raise BadData(f"the {side} rows lack the columns {', '.join(missing)}")
    try:
        numeric = frame[list(columns)].astype("float64").reset_index(drop=True)
    except (TypeError, ValueError) as error:
        raise BadData(f"the {side} rows hold a column that is not numeric: {error}") from error
    return numeric.where(np.isfinite(numeric))


def _enough(rows: int, what: str) -> None:
    if rows < MINIMUM_ROWS:
        raise BadData(
            f"{rows} {what} are too few to tell drift from chance",
            fix=f"at least {MINIMUM_ROWS} are needed",
        )


def _run(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    labels: tuple[pd.Series[bool], pd.Series[bool]] | None,
) -> tuple[dict[str, float], float | None, str, dict[str, Any]]:
    """Evidently's score of each column and of the labels, its page and its values."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    names = list(reference.columns)
    # Project names hold no blank, so this one is free.
    target = "target label"
    # Each metric by itself: the preset computes every column three times.
    metrics = [
        ValueDrift(column=name, method=FEATURE_METHOD, threshold=FEATURE_THRESHOLD)
        for name in names
    ]
    if labels is not None:
        # Side by side; Evidently leaves out the nulls that fill up the shorter columns.
        reference, current = (
            pd.concat([frame, series.map(_CLASS).reset_index(drop=True).rename(target)], axis=1)
            for frame, series in zip((reference, current), labels, strict=True)
        )
        metrics.append(ValueDrift(column=target, method=TARGET_METHOD, threshold=TARGET_THRESHOLD))
    definition = DataDefinition(
        numerical_columns=names, categorical_columns=[] if labels is None else [target]
    )
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
    return scores, scores.pop(target, None), html, report


_CLASS = {True: "true", False: "false"}


def _without_nan(value: Any) -> Any:
    """The JSON value with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
