"""What a model must not be trained on silently: each finding says what, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np
import pandas as pd

from espalier.authoring.answers import NONE, ROW, Answers, As
from espalier.authoring.convert import Converted
from espalier.authoring.kinds import first_row
from espalier.errors import BadData
from espalier.project import Task

FEWEST_ROWS, FEWEST_OF_CLASS = 30, 5
LEAK = 0.995
_SAME = 0.9999
# A column of few values that tells the label of each is a leak; of many, it may be chance.
_ROWS_A_VALUE = 5


def problems(converted: Converted, rows: pd.DataFrame, *, today: date) -> list[BadData]:
    """Everything that stands against training on these rows, in the order to look at it."""
    answers = converted.answers
    return [
        *_key(converted, answers, rows),
        *_time(converted, answers, today),
        *_label(converted, answers),
        *_leaks(converted, answers),
    ]


def _key(converted: Converted, answers: Answers, rows: pd.DataFrame) -> Iterator[BadData]:
    if answers.key == (ROW,):
        return
    both = pd.DataFrame({"key": converted.key, "day": converted.day})
    again = both.duplicated(keep=False)
    if not again.any():
        return
    first = both[again].iloc[0]
    same = both[(both["key"] == first["key"]) & (both["day"] == first["day"])]
    where = ", ".join(str(int(i) + 2) for i in same.index[:3])
    timed = answers.time != NONE
    # Of the same day as written, whatever days count as.
    if timed and answers.time is not None:
        where += f", {answers.time} {rows[answers.time].iloc[same.index[0]]}"
    fix = "add the columns that tell them apart: --key A,B" + (
        "" if timed else "; or name the column of the time: --time COLUMN"
    )
    yield BadData(
        f"key {', '.join(answers.key or ())} is not unique{' for each time' if timed else ''}: "
        f"{again.sum():,} rows share it, such as {str(first['key'])[:40]!r} (rows {where})",
        fix=fix,
    )


def _time(converted: Converted, answers: Answers, today: date) -> Iterator[BadData]:
    if answers.time != NONE:
        late = converted.written > pd.Timestamp(today)
        if late.any():
            yield BadData(
                f"time column {answers.time!r} is after today in {late.sum():,} rows, first in row "
                f"{first_row(late)}: {converted.written[late].iloc[0].date()}",
                fix="mend those rows, or name another --time",
            )
    for feature in answers.features or ():
        if feature.kind is not As.DAYS:
            continue
        ahead = pd.to_numeric(converted.features[feature.name]) < 0
        if ahead.any():
            what = "the snapshot's day" if answers.time == NONE else str(answers.time)
            fix = f"it would not be known then: --drop {feature.source}"
            if answers.time == NONE:
                fix += ", or a later --as-of"
            yield BadData(
                f"column {feature.source!r} is after {what} in {ahead.sum():,} rows, first in row "
                f"{first_row(ahead)}",
                fix=fix,
            )


def _label(converted: Converted, answers: Answers) -> Iterator[BadData]:
    known = converted.label.dropna()
    if len(known) < FEWEST_ROWS:
        yield BadData(
            f"{len(known)} rows with a label are too few to train and to validate",
            fix=f"bring at least {FEWEST_ROWS}",
        )
    if answers.task == Task.REGRESSION.value:
        return
    counts = known.value_counts()
    if len(counts) < 2:
        yield BadData(f"label {answers.label!r} is the same in every row that has one")
    rare = counts[counts < FEWEST_OF_CLASS]
    if len(rare):
        told = ", ".join(f"{value!r}: {count}" for value, count in rare.items())
        yield BadData(
            f"label {answers.label!r} has classes of fewer than {FEWEST_OF_CLASS} rows: {told}",
            fix="bring more of them, merge them with another class, or leave those rows out",
        )


def _leaks(converted: Converted, answers: Answers) -> Iterator[BadData]:
    known = converted.label.notna()
    label = converted.label[known]
    for feature in answers.features or ():
        values = pd.to_numeric(converted.features.loc[known, feature.name])
        if why := _leak(values, label, answers.task or ""):
            yield BadData(
                f"column {feature.source!r} tells the label: {why}",
                fix=f"if it is known only afterwards, --drop {feature.source}; "
                "it cannot be trained on",
            )


def _leak(values: pd.Series, label: pd.Series, task: str) -> str:
    """Why one feature knows the label; empty when it does not."""
    there = values.notna()
    if there.sum() < 2 or len(label) < FEWEST_ROWS:
        return ""
    if task == Task.REGRESSION.value:
        amounts = pd.to_numeric(label)
        alike = _correlation(values[there], amounts[there])
        return f"their correlation is {alike:.5f}" if abs(alike) > _SAME else ""
    each = label[there].groupby(values[there]).nunique()
    several = len(each) > 1 and len(label[there].unique()) > 1
    if several and (each == 1).all() and len(each) * _ROWS_A_VALUE <= there.sum():
        return f"each of its {len(each)} values goes with one label"
    if not there.all() and _one_sided(~there, label):
        return "it is empty exactly where the label has one value"
    filled = values.fillna(values.min() - 1)
    found = [roc_auc(label == one, filled) for one in label.unique()]
    worst = min(max(auc, 1 - auc) for auc in found)
    return f"alone it reaches a ROC-AUC of {worst:.4f}" if worst > LEAK else ""


def _one_sided(empty: pd.Series, label: pd.Series) -> bool:
    """Whether the label is one where values are missing, and another elsewhere."""
    where_empty = label[empty].unique()
    return len(where_empty) == 1 and not label[~empty].isin(where_empty).any()


def _correlation(values: pd.Series, amounts: pd.Series) -> float:
    """The larger of the linear and the rank correlation; 0 when one is constant."""
    if values.nunique() < 2 or amounts.nunique() < 2:
        return 0.0
    linear = np.corrcoef(values.to_numpy(float), amounts.to_numpy(float))[0, 1]
    ranks = np.corrcoef(values.rank().to_numpy(), amounts.rank().to_numpy())[0, 1]
    return float(max(linear, ranks, -linear, -ranks))


def roc_auc(positive: pd.Series, values: pd.Series) -> float:
    """The share of pairs that the values put in order; ties count half."""
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        return 0.5
    ranks = values.rank().to_numpy()
    return float((ranks[positive.to_numpy()].sum() - count * (count + 1) / 2) / (count * others))
