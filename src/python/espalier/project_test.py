from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from churn.project import FEATURES, LABELS, PROJECT
from espalier.contract import ColumnType
from espalier.errors import ConfigurationError
from espalier.policies import Decision, Gate, Search, Slice
from espalier.project import Calendar, load_function, load_project


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
        ({"label": replace(PROJECT.label, column="user_id")}, "must be BOOLEAN"),
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
    ],
)
def test_training_that_cannot_be_is_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


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
