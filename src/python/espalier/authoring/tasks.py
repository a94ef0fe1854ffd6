"""What kind of prediction a label asks for, and which of its values means what."""

from __future__ import annotations

import pandas as pd

from espalier.authoring.answers import Answers
from espalier.authoring.kinds import TRUE, Kind, Profile, without_null_words
from espalier.authoring.roles import GIVEN, OPEN, SURE, Found, Guess, Question
from espalier.errors import BadData, UsageError
from espalier.project import Task

MOST_CLASSES = 50
_MANY = 20
_FALSE = frozenset({"false", "f", "no", "n", "0", "0.0"})


def task_of(given: Answers, label: Profile, values: pd.Series) -> Found:
    """Binary, multi-class or regression.

    Raises:
        UsageError: the answer is none of these, or the label's values are not of it.
    """
    numbers = label.kind in (Kind.INTEGER, Kind.DOUBLE)
    if given.task is not None:
        return Guess(
            "task", _checked(given.task, label, numbers=numbers), GIVEN, _told(label)
        ), None
    if label.distinct <= 2:
        return Guess("task", Task.BINARY.value, SURE, "the label has two values"), None
    if not numbers:
        reason = f"the label is text of {label.distinct} values"
        return Guess("task", Task.MULTICLASS.value, SURE, reason), None
    fractions = without_null_words(values).str.fullmatch(r".*\.\d*[1-9]\d*.*").any()
    if fractions or label.distinct > _MANY:
        return Guess("task", Task.REGRESSION.value, SURE, _told(label)), None
    told = f"are the {label.distinct} values of {label.name} classes, or is it an amount?"
    options = tuple(f"--task {t.value}" for t in (Task.MULTICLASS, Task.REGRESSION))
    question = Question("--task", told, options)
    return Guess("task", Task.MULTICLASS.value, OPEN, _told(label)), question


def _checked(task: str, label: Profile, *, numbers: bool) -> str:
    kinds = [one.value for one in Task]
    if task not in kinds:
        raise UsageError(f"task {task!r} is none", fix=f"say {', '.join(kinds)}")
    if task == Task.REGRESSION.value and not numbers:
        raise UsageError(f"label {label.name!r} is {label.kind.value}", fix="predict its classes")
    if task == Task.BINARY.value and label.distinct > 2:
        raise UsageError(
            f"label {label.name!r} has {label.distinct} values", fix="say --task multiclass"
        )
    if task == Task.MULTICLASS.value and label.distinct < 3:
        raise UsageError(f"label {label.name!r} has {label.distinct} values; say --task binary")
    return task


def _told(label: Profile) -> str:
    return f"{label.distinct} different values, {label.kind.value}"


def positive_of(given: Answers, values: pd.Series) -> Found:
    """Which of a binary label's values counts as true.

    Raises:
        UsageError: the answer is not among them.
    """
    there = sorted(without_null_words(values).unique())
    if given.positive is not None:
        if given.positive not in there:
            raise UsageError(
                f"--positive {given.positive!r} is not among the label's values",
                fix=f"there are {', '.join(there)}",
            )
        return Guess("positive", given.positive, GIVEN, f"of {', '.join(there)}"), None
    true = [v for v in there if v.lower() in TRUE]
    false = [v for v in there if v.lower() in _FALSE]
    if len(true) == 1 and len(false) == len(there) - 1:
        return Guess("positive", true[0], SURE, f"of {', '.join(there)}"), None
    question = Question(
        "--positive VALUE",
        "which value of the label is the one to look for?",
        tuple(f"--positive {v}" for v in there),
    )
    return Guess("positive", there[-1], OPEN, f"of {', '.join(there)}"), question


def classes_of(given: Answers, label: Profile, values: pd.Series) -> tuple[str, ...]:
    """All classes in order: numbers by size, text by letters, unless a person gave an order.

    Raises:
        BadData: there are too many, or one has a single row.
        UsageError: the order that was given lacks one.
    """
    counts = without_null_words(values).value_counts()
    if len(counts) > MOST_CLASSES:
        raise BadData(
            f"label {label.name!r} has {len(counts)} classes, more than {MOST_CLASSES}",
            fix="merge the rare ones, or say --task regression if it is an amount",
        )
    found = list(counts.index)
    numbers = label.kind in (Kind.INTEGER, Kind.DOUBLE)
    ordered = tuple(sorted(found, key=float) if numbers else sorted(found))
    if given.classes is not None:
        if set(given.classes) != set(ordered):
            raise UsageError(
                f"classes {', '.join(given.classes)} are not the label's",
                fix=f"it has {', '.join(ordered)}",
            )
        return given.classes
    return ordered
