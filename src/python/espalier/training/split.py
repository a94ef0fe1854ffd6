"""Splits a training set by time, with a purge gap."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import pandas as pd

from espalier.errors import BadData, CheckRefused
from espalier.project import Label


@dataclass(frozen=True)
class Split:
    """Rows to train on and later rows to validate on, both of the training set's columns."""

    train: pd.DataFrame
    validation: pd.DataFrame
    train_times: tuple[date, ...]
    validation_time: date


def split_by_time(frame: pd.DataFrame, label: Label) -> Split:
    """Validate on the newest label time, train on those at least `label.horizon` older.

    A label at time t looks at the horizon after t. Had we trained on the day of the newest label
    time v, labels younger than v - horizon would not have been known. Training on them would also
    let the model see the very days that it is validated on. So they are left out (purged).

    Args:
        frame: One row a label, with `label_time` (datetime64, UTC) and `label` (bool).
        label: The project's declaration.

    Raises:
        BadData: there is no label, or only one class among those to train or to validate on.
        CheckRefused: the labels do not span the horizon yet.
    """
    if frame.empty:
        raise BadData(
            f"no row of table {label.table} with features is known yet",
            fix="ingest a later batch, or check that features reach back to the label times",
        )
    newest, oldest = frame["label_time"].max(), frame["label_time"].min()
    last = newest - label.horizon
    train = frame[frame["label_time"] <= last]
    validation = frame[frame["label_time"] == newest]
    if train.empty:
        raise CheckRefused(
            f"labels from {oldest.date()} to {newest.date()} are too few months to train: the "
            f"newest validate, and those to train on must be {_days(label.horizon)} older",
            fix="ingest until labels of "
            f"{(oldest + label.horizon).date()} or later are known, which takes a batch as of "
            f"{(oldest + 2 * label.horizon).date()} or later",
        )
    for use, rows in (("train", train), ("validate", validation)):
        if rows["label"].nunique() < 2:
            raise BadData(
                f"all {len(rows)} labels to {use} on are {bool(rows['label'].iloc[0])}",
                fix=f"check column {label.column} of table {label.table}",
            )
    times = tuple(time.date() for time in sorted(train["label_time"].unique()))
    return Split(train, validation, times, newest.date())


def rolling_origins(frame: pd.DataFrame, label: Label, folds: int) -> list[Split]:
    """Splits of training rows for cross-validation in time, oldest first.

    Each of the newest `folds` label times is validated on in turn, by rows at least the horizon
    older: what would have been known then. Times without rows that old, or with one class alone on
    either side, make no fold, so that there may be fewer or none.

    Args:
        frame: As for `split_by_time`, without the rows that validate the model itself.
        label: The project's declaration.
        folds: How many at most.
    """
    found: list[Split] = []
    for time in sorted(frame["label_time"].unique(), reverse=True):
        train = frame[frame["label_time"] <= time - label.horizon]
        validation = frame[frame["label_time"] == time]
        if min(train["label"].nunique(), validation["label"].nunique()) < 2:
            continue
        times = tuple(t.date() for t in sorted(train["label_time"].unique()))
        found.append(Split(train, validation, times, time.date()))
        if len(found) == folds:
            break
    return found[::-1]


def _days(span: timedelta) -> str:
    return f"{span.days} days"
