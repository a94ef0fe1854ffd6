"""What is predicted: two classes, several, or a number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from espalier.contract import Column, ColumnType
from espalier.errors import ConfigurationError

# An integer as PostgreSQL writes it.
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_MIN_CLASSES = 3


class Task(Enum):
    """What kind of thing is predicted: one of two classes, one of several, or a number."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"


@dataclass(frozen=True, kw_only=True)
class Label:
    """What is predicted: `column` of `table`; its type and `classes` decide the `Task`.

    A BOOLEAN column is of two classes, and `positive_means` says in words what true is. A TEXT or
    INTEGER column with `classes`, at least three, as text and in the order that predictions number
    them, is of several. A DOUBLE column, or an INTEGER one without classes, is a number.
    The value at `time` looks at the `horizon` after it, so it is known only when that has passed;
    with a horizon of 0 it is known when its time is.
    """

    table: str
    column: str
    time: str
    horizon: timedelta
    positive_means: str = ""
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse classes and a horizon that are none."""
        if self.horizon < timedelta(0):
            raise ConfigurationError(f"label {self.column} has a horizon below 0")
        if not self.classes:
            return
        if len(self.classes) < _MIN_CLASSES:
            raise ConfigurationError(
                f"label {self.column} has {len(self.classes)} classes",
                fix=f"declare at least {_MIN_CLASSES}; a label of two classes is a BOOLEAN column",
            )
        if len(set(self.classes)) < len(self.classes) or not all(self.classes):
            raise ConfigurationError(f"a class of label {self.column} is empty or declared twice")

    def task(self, column: Column) -> Task:
        """What kind of thing is predicted, where that is the label's column."""
        if self.classes:
            return Task.MULTICLASS
        return Task.BINARY if column.type is ColumnType.BOOLEAN else Task.REGRESSION


def check_label(label: Label, column: Column, project: str) -> None:
    """Refuse a label that its column cannot be.

    Raises:
        ConfigurationError: type, classes and meaning do not fit each other.
    """
    what = f"label {label.column} of project {project} is {column.type.value}"
    if label.classes and column.type not in (ColumnType.TEXT, ColumnType.INTEGER):
        raise ConfigurationError(
            f"{what} and has classes", fix="classes are of a TEXT or an INTEGER column"
        )
    if column.type is ColumnType.TEXT and not label.classes:
        raise ConfigurationError(
            f"{what} and has no classes",
            fix="declare Label(classes=...), or a label of two classes as BOOLEAN",
        )
    if column.type in (ColumnType.DATE, ColumnType.TIMESTAMP):
        raise ConfigurationError(
            what, fix="use a BOOLEAN, a number, or a TEXT or an INTEGER column with classes"
        )
    if column.type is ColumnType.INTEGER and not all(map(_WHOLE.fullmatch, label.classes)):
        raise ConfigurationError(
            f"{what} and has classes that are no such numbers: {', '.join(label.classes)}",
            fix='write them as PostgreSQL does, such as "3"',
        )
    if column.type is ColumnType.BOOLEAN and not label.positive_means:
        raise ConfigurationError(
            f"{what} and nothing says what true means", fix="declare Label(positive_means=...)"
        )
    if label.classes and (more := set(column.allowed) - set(label.classes)):
        raise ConfigurationError(
            f"{what} and allows values that are no classes: {', '.join(sorted(more))}"
        )
