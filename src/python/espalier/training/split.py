"""Splits a training set by time, with a purge gap, or by entity."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from espalier.errors import BadData, CheckRefused
from espalier.project import Label, Project, Task
from espalier.training.binary import Floats
from espalier.training.evaluate import places


@dataclass(frozen=True)
class Split:
    """Rows to train on and others to validate on, both of the training set's columns."""

    train: pd.DataFrame
    validation: pd.DataFrame
    train_times: tuple[date, ...]
    validation_time: date


def split_rows(frame: pd.DataFrame, project: Project) -> Split:
    """Split a training set as the project declares; class names become their places.

    Args:
        frame: As `training_set` gives it.
        project: Its label and `validation` decide.

    Raises:
        BadData, CheckRefused: as `split_by_time` and `split_by_entity`; or a label is of no
            declared class, or no finite number.
    """
    if project.task is Task.MULTICLASS:
        frame = frame.assign(label=places(frame["label"].to_numpy(), project.label.classes))
    _check_labels(frame, project)
    if project.validation.by == "time":
        return split_by_time(frame, project.label)
    return split_by_entity(frame, project)


def split_by_time(frame: pd.DataFrame, label: Label) -> Split:
    """Validate on the newest label time, train on those at least `label.horizon` older.

    A label at time t looks at the horizon after t. Had we trained on the day of the newest label
    time v, labels younger than v - horizon would not have been known. Training on them would also
    let the model see the very days that it is validated on. So they are left out (purged).

    Args:
        frame: One row a label, with `label_time` (datetime64, UTC) and `label` (bool, the place of
            a class or a number).
        label: The project's declaration.

    Raises:
        BadData: there is no label, or a class lacks among those to train or to validate on, or all
            of them are one number.
        CheckRefused: the labels do not span the horizon yet.
    """
    _check_any(frame, label)
    newest, oldest = frame["label_time"].max(), frame["label_time"].min()
    train = _known_at(frame, newest, label)
    validation = frame[frame["label_time"] == newest]
    if train.empty and not label.horizon:
        raise CheckRefused(
            f"all labels are of {newest.date()}: the newest label time validates, and none is "
            "left to train on",
            fix="ingest until labels of another time are known, or for data of one snapshot "
            'declare validation=Validation(by="entity")',
        )
    if train.empty:
        raise CheckRefused(
            f"labels from {oldest.date()} to {newest.date()} are too few months to train: the "
            f"newest validate, and those to train on must be {_days(label.horizon)} older",
            fix="ingest until labels of "
            f"{(oldest + label.horizon).date()} or later are known, which takes a batch as of "
            f"{(oldest + 2 * label.horizon).date()} or later",
        )
    return _made(train, validation, newest, label)


def split_by_entity(frame: pd.DataFrame, project: Project) -> Split:
    """Validate on entities chosen by a seeded hash of their key, of the newest label time alone.

    An entity is chosen or not whatever others there are, so a later training with the same seed
    and share does not train on those that validated an earlier one. Of the others the labels of all
    times are trained on.

    Args:
        frame: As for `split_by_time`.
        project: Its entity, seed and `validation`.

    Raises:
        BadData: as `split_by_time`.
        CheckRefused: there are too few entities for the share.
    """
    _check_any(frame, project.label)
    newest, share = frame["label_time"].max(), project.validation.share
    keys = frame[project.entity.join_key]
    chosen = _hashes(keys, f"{project.seed}") < share
    train = frame[~chosen]
    validation = frame[chosen & (frame["label_time"] == newest).to_numpy()]
    if train.empty or validation.empty:
        raise CheckRefused(
            f"{keys.nunique()} entities are too few to validate on a share of {share:g} of them",
            fix="ingest more of them, or declare Validation(by='entity', share=...)",
        )
    return _made(train, validation, newest, project.label)


def folds(frame: pd.DataFrame, project: Project) -> list[Split]:
    """Splits of training rows for cross-validation, as many as the project's search asks for.

    By time they are `rolling_origins`. By entity the entities are cut into so many parts, at least
    two, by a seeded hash of their key; each part's newest label time is validated on by the others.

    Args:
        frame: As for `split_by_time`, without the rows that validate the model itself.
        project: The declaration.
    """
    count, label = project.search.folds, project.label
    if project.validation.by == "time":
        return rolling_origins(frame, label, count)
    parts = max(2, count)
    part = (_hashes(frame[project.entity.join_key], f"{project.seed} fold") * parts).astype(int)
    newest = frame["label_time"].max()
    is_newest = (frame["label_time"] == newest).to_numpy()
    found = []
    for number in range(count):
        train, validation = frame[part != number], frame[(part == number) & is_newest]
        if not (_lacking(train, label, "train") or _lacking(validation, label, "validate")):
            found.append(_made(train, validation, newest, label))
    return found


def rolling_origins(frame: pd.DataFrame, label: Label, folds: int) -> list[Split]:
    """Splits of training rows for cross-validation in time, oldest first.

    Each of the newest `folds` label times is validated on in turn, by rows at least the horizon
    older: what would have been known then. Times without rows that old, or that lack a class on
    either side, make no fold, so that there may be fewer or none.

    Args:
        frame: As for `split_by_time`, without the rows that validate the model itself.
        label: The project's declaration.
        folds: How many at most.
    """
    found: list[Split] = []
    for time in sorted(frame["label_time"].unique(), reverse=True):
        train = _known_at(frame, time, label)
        validation = frame[frame["label_time"] == time]
        if _lacking(train, label, "train") or _lacking(validation, label, "validate"):
            continue
        found.append(_made(train, validation, time, label))
        if len(found) == folds:
            break
    return found[::-1]


def _known_at(frame: pd.DataFrame, time: pd.Timestamp, label: Label) -> pd.DataFrame:
    """The rows of older label times whose labels were known at a time."""
    older = frame["label_time"] <= time - label.horizon
    return frame[older if label.horizon else frame["label_time"] < time]


def _made(train: pd.DataFrame, validation: pd.DataFrame, time: pd.Timestamp, label: Label) -> Split:
    for use, rows in (("train", train), ("validate", validation)):
        if lacking := _lacking(rows, label, use):
            raise BadData(
                lacking,
                fix=f"check column {label.column} of table {label.table}"
                + (", ingest more rows, or leave the class out" if label.classes else ""),
            )
    times = tuple(t.date() for t in sorted(train["label_time"].unique()))
    return Split(train, validation, times, time.date())


def _lacking(rows: pd.DataFrame, label: Label, use: str) -> str:
    """What rows to train or to validate on have not and need, in words; empty when nothing."""
    if label.classes:
        there = set(rows["label"].unique().tolist())
        missing = [name for place, name in enumerate(label.classes) if place not in there]
        told = f"none of the {len(rows)} labels to {use} on is {' or '.join(missing)}"
        return told if missing else ""
    if len(rows["label"].unique()) > 1:
        return ""
    if rows.empty:
        return f"there are no labels to {use} on"
    return f"all {len(rows)} labels to {use} on are {rows['label'].iloc[0]}"


def _check_any(frame: pd.DataFrame, label: Label) -> None:
    if frame.empty:
        raise BadData(
            f"no row of table {label.table} with features is known yet",
            fix="ingest a later batch, or check that features reach back to the label times",
        )


def _check_labels(frame: pd.DataFrame, project: Project) -> None:
    values, label = frame["label"].to_numpy(), project.label
    wrong, what = np.zeros(len(values), dtype=bool), ""
    if project.task is Task.MULTICLASS:
        wrong, what = values < 0, f"none of {', '.join(label.classes)}"
    elif project.task is Task.REGRESSION:
        wrong, what = ~np.isfinite(values), "no finite number"
    if wrong.any():
        raise BadData(
            f"{int(wrong.sum())} of {len(values)} labels are {what}",
            fix=f"check column {label.column} of table {label.table}",
        )


def _hashes(keys: pd.Series, salt: str) -> Floats:
    """A number [n] of 0 to 1 for each key, equal for equal ones and otherwise even and unrelated."""
    codes, unique = pd.factorize(keys)
    digests = (hashlib.sha256(f"{salt} {key}".encode()).digest() for key in unique)
    numbers = np.array([int.from_bytes(digest[:8], "big") for digest in digests], dtype=np.float64)
    return np.asarray((numbers / 2.0**64)[codes])


def _days(span: timedelta) -> str:
    return f"{span.days} days"
