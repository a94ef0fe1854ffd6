"""Labels of every kind through the training set, and those that come with their features."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from espalier.contract import ColumnType
from espalier.errors import BadData
from espalier.features.conftest import add_versions, day, make_tables, shop
from espalier.features.point_in_time import training_set
from espalier.policies import Gate
from espalier.postgres.connect import Connection
from espalier.project import Project

LATER = date(2020, 3, 1)


def shops(kind: ColumnType, classes: tuple[str, ...] = (), *, horizon: int = 2) -> Project:
    """The product of these tests with another label."""
    project = shop()
    facts, outcomes = project.tables
    columns = tuple(
        replace(column, type=kind) if column.name == "closed" else column
        for column in outcomes.columns
    )
    return replace(
        project,
        tables=(facts, replace(outcomes, columns=columns)),
        label=replace(project.label, classes=classes, horizon=timedelta(days=horizon)),
        gate=Gate(),
    )


def fill(connection: Connection, project: Project, labels: list[Any]) -> None:
    """A label and a row of features of day 10 for each shop, known in time."""
    make_tables(connection, project)
    for number, label in enumerate(labels):
        key = f"s{number}"
        at = day(10)
        add_versions(connection, project, "facts", [(key, at.date(), number, 0.5, at, 1)])
        add_versions(connection, project, "outcomes", [(key, at.date(), label, day(12), 1)])


@pytest.mark.parametrize(
    ("kind", "classes", "stored", "expected"),
    [
        (ColumnType.TEXT, ("b", "a", "ü, 'c'"), ["a", "ü, 'c'", "b", "a"], None),
        (ColumnType.INTEGER, ("7", "-1", "30"), [30, -1, 7, 7], ["30", "-1", "7", "7"]),
        (ColumnType.DOUBLE, (), [0.1, -2.5, 1e300, 0.0], None),
        (ColumnType.INTEGER, (), [3, -2, 0, 2**40], [3.0, -2.0, 0.0, float(2**40)]),
    ],
    ids=["text", "classes that are numbers", "doubles", "integers"],
)
def test_labels_of_each_kind(
    database: Connection,
    kind: ColumnType,
    classes: tuple[str, ...],
    stored: list[Any],
    expected: list[Any] | None,
) -> None:
    project = shops(kind, classes)
    fill(database, project, stored)
    frame = training_set(database, project, as_of=LATER)
    assert list(frame["label"]) == (expected or stored)
    assert frame["label"].dtype == (object if classes else np.float64)
    assert list(frame["orders"]) == [0, 1, 2, 3]


def test_a_label_of_no_declared_class(database: Connection) -> None:
    project = shops(ColumnType.TEXT, ("a", "b", "c"))
    fill(database, project, ["a", "d", "b"])
    with pytest.raises(BadData, match=r"1 labels in shops\.outcomes have a closed that is none of"):
        training_set(database, project, as_of=LATER)


AT_ONCE = shops(ColumnType.DOUBLE, horizon=0)


def label(connection: Connection, number: int, value: float, known: datetime) -> None:
    add_versions(connection, AT_ONCE, "outcomes", [("a", day(number).date(), value, known, 1)])


def facts(connection: Connection, number: int, orders: int, known: datetime, of: int = 1) -> None:
    row = ("a", day(number).date(), orders, 0.5, known, of)
    add_versions(connection, AT_ONCE, "facts", [row])


def orders_of(frame: pd.DataFrame) -> list[float]:
    return list(frame["orders"])


def test_labels_known_with_their_features(database: Connection) -> None:
    """A batch of day 20 brings both for days 10 and 15."""
    make_tables(database, AT_ONCE)
    for number in (10, 15):
        label(database, number, float(number), day(20))
        facts(database, number, number, day(20))
    assert training_set(database, AT_ONCE, as_of=day(19).date()).empty
    frame = training_set(database, AT_ONCE, as_of=day(20).date())
    assert orders_of(frame) == [10, 15]
    assert list(frame["feature_time"]) == list(frame["label_time"])
    # Where labels come later, what came after the label's time is kept out.
    late = replace(AT_ONCE, label=replace(AT_ONCE.label, horizon=timedelta(days=2)))
    assert orders_of(training_set(database, late, as_of=LATER)) == []


def test_what_came_after_the_label_was_known_is_kept_out(database: Connection) -> None:
    make_tables(database, AT_ONCE)
    label(database, 10, 1.0, day(20))
    facts(database, 10, 1, day(20))
    facts(database, 10, 666, day(21), of=2)
    facts(database, 11, 667, day(20))
    # A correction of the label brings no newer features.
    row = ("a", day(10).date(), 2.0, day(22), 2)
    add_versions(database, AT_ONCE, "outcomes", [row])
    frame = training_set(database, AT_ONCE, as_of=LATER)
    assert (orders_of(frame), list(frame["label"])) == ([1], [2.0])
    again = training_set(database, AT_ONCE, as_of=LATER, snapshots=[1])
    assert (orders_of(again), list(again["label"])) == ([1], [1.0])
