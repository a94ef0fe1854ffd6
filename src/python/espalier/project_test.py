from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from churn.project import FEATURES, LABELS, PROJECT
from espalier.contract import ColumnType
from espalier.errors import ConfigurationError
from espalier.policies import Decision, Gate, Search, Serving, Slice, Validation
from espalier.project import Calendar, Label, Task, load_function, load_project


def test_load_project_finds_the_declaration():
    assert load_project("churn") is PROJECT


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", "no project 'absent' here"), ("../etc", "is not a project's name")],
)
def test_load_project_names_what_is_wrong(name, message):
    with pytest.raises(ConfigurationError, match=message):
        load_project(name)


@pytest.mark.parametrize("reference", ["os:nothing_there", "no_such_module:f", "os", "os:sep"])
def test_load_function_refuses_what_is_no_function(reference):
    with pytest.raises(ConfigurationError, match=reference):
        load_function(reference)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Churn Model"}, "use a-z"),
        ({"view": replace(PROJECT.view, table="nowhere")}, "no table nowhere"),
        ({"view": replace(PROJECT.view, features=("nope",))}, "no column nope"),
        ({"view": replace(PROJECT.view, features=("feature_date",))}, "INTEGER or DOUBLE"),
        ({"view": replace(PROJECT.view, table="users", features=())}, "needs an event_time"),
        ({"label": replace(PROJECT.label, column="user_id")}, "has no classes; declare Label"),
        ({"label": replace(PROJECT.label, column="label_date")}, "is date; use a BOOLEAN"),
        ({"label": replace(PROJECT.label, positive_means="")}, "nothing says what true means"),
        ({"label": replace(PROJECT.label, classes=("a", "b", "c"))}, "boolean and has classes"),
        ({"gate": Gate(metric="rmse")}, "a binary gate cannot use metric 'rmse'; use roc_auc"),
        ({"serving": Serving(default_score=1.5)}, "1.5 is no probability"),
        ({"tables": (replace(FEATURES, key=("nope",)), LABELS)}, "no column nope"),
        ({"calibration": "platt"}, "use none, sigmoid or isotonic"),
        ({"slices": (Slice(name="old", feature="age"),), "gate": Gate()}, "old of project churn"),
        ({"slices": (Slice(name="s", feature="orders_90d", minimum=2, maximum=2),)}, "is empty"),
        ({"slices": (Slice(name="s", feature="orders_90d"),) * 2}, "declared twice"),
        ({"gate": Gate(slices=("whales",))}, "undeclared slices: whales"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ConfigurationError, match=message):
        replace(PROJECT, **change)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Decision(objective="profit"), "balanced_accuracy, f1 or cost"),
        (lambda: Decision(objective="cost", false_negative=0), "above 0"),
        (lambda: Search(folds=0), "at least one trial and one fold"),
        (lambda: Validation(by="row"), "say time or entity"),  # type: ignore[arg-type]
        (lambda: Validation(by="entity", share=1), "above 0 and below 1"),
        (lambda: Serving(default_score=float("nan")), "is no number"),
        (lambda: replace(PROJECT.label, horizon=timedelta(-1)), "horizon below 0"),
        (lambda: replace(PROJECT.label, classes=("a", "b")), "at least 3; a label of two classes"),
        (lambda: replace(PROJECT.label, classes=("a", "b", "b")), "empty or declared twice"),
    ],
)
def test_training_that_cannot_be_is_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


def of_label(kind, classes=(), allowed=(), **changes):
    """Churn's declaration with another kind of label."""
    *others, label = LABELS.columns
    column = replace(label, type=kind, allowed=allowed)
    tables = tuple(
        replace(table, columns=(*others, column)) if table.name == "labels" else table
        for table in PROJECT.tables
    )
    told: dict[str, Any] = {
        "label": replace(PROJECT.label, classes=classes, positive_means=""),
        "gate": Gate(),
    }
    return replace(PROJECT, tables=tables, **told | changes)


ABC = ("a", "b", "c")


@pytest.mark.parametrize(
    ("kind", "classes", "task", "metric"),
    [
        (ColumnType.TEXT, ABC, Task.MULTICLASS, "roc_auc"),
        (ColumnType.INTEGER, ("3", "-1", "0"), Task.MULTICLASS, "roc_auc"),
        (ColumnType.INTEGER, (), Task.REGRESSION, "r2"),
        (ColumnType.DOUBLE, (), Task.REGRESSION, "r2"),
    ],
)
def test_the_label_decides_the_task_and_the_task_the_gates_metric(kind, classes, task, metric):
    project = of_label(kind, classes)
    assert (project.task, project.gate.metric) == (task, metric)
    assert PROJECT.task is Task.BINARY
    assert replace(PROJECT, gate=Gate()).gate.metric == "roc_auc"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: of_label(ColumnType.DOUBLE, ABC), "double precision and has classes"),
        (lambda: of_label(ColumnType.INTEGER, ("1", "02", "x")), "no such numbers: 1, 02, x"),
        (
            lambda: of_label(ColumnType.TEXT, ABC, ("a", "d")),
            "allows values that are no classes: d",
        ),
        (
            lambda: of_label(ColumnType.TEXT, ABC, calibration="sigmoid"),
            "declares calibration 'sigmoid' and its label is multiclass; leave it out",
        ),
        (
            lambda: of_label(ColumnType.DOUBLE, decision=Decision(objective="f1")),
            "declares a decision and its label is regression",
        ),
        (
            lambda: of_label(ColumnType.TEXT, ABC, serving=Serving(default_score=0.5)),
            "does not tell a class; use the serving policies refuse and predict",
        ),
        (
            lambda: of_label(ColumnType.DOUBLE, gate=Gate(metric="roc_auc")),
            "a regression gate cannot use metric 'roc_auc'; use r2, rmse",
        ),
    ],
)
def test_a_policy_that_the_label_cannot_have_is_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_of_a_number_any_finite_default_may_be_answered():
    assert of_label(ColumnType.DOUBLE, serving=Serving(default_score=-40.5)).serving.default_score
    assert Label(table="t", column="c", time="t", horizon=timedelta(0)).classes == ()


def test_column_types_are_postgresql_names():
    assert FEATURES.column("mean_gap_days").type is ColumnType.DOUBLE


@given(
    first=st.dates(date(1990, 1, 1), date(2100, 1, 1)).map(
        lambda d: Calendar(first=d.replace(day=1)).as_of(0)
    ),
    month=st.integers(0, 500),
)
def test_calendar_counts_month_ends(first, month):
    calendar = Calendar(first=first)
    assert calendar.as_of(0) == first
    day = calendar.as_of(month)
    assert calendar.month(day) == month
    assert (day + timedelta(days=1)).day == 1


@pytest.mark.parametrize("day", [date(1997, 5, 31), date(1997, 7, 30)])
def test_calendar_refuses_a_day_without_a_batch(day):
    with pytest.raises(ConfigurationError, match="--source"):
        PROJECT.calendar.month(day)
