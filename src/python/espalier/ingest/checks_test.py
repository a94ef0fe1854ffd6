from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from espalier.contract import Column, ColumnType, Table
from espalier.errors import ConfigurationError
from espalier.ingest.checks import Kind, checks
from espalier.ingest.conftest import AS_OF, HOTEL, NIGHTS, ROOMS, STAYS, hotel
from espalier.project import Project


def of(project: Project, kind: Kind) -> Any:
    return [
        (check.table, *check.columns)
        for check in checks(project, as_of=AS_OF)
        if check.kind is kind
    ]


def test_the_declaration_gives_its_checks() -> None:
    assert of(HOTEL, Kind.ROWS) == [("rooms",), ("nights",)]
    assert of(HOTEL, Kind.NOT_NULL) == [
        ("rooms", "room"),
        ("rooms", "kind"),
        ("nights", "room"),
        ("nights", "night"),
        ("stays", "room"),
        ("stays", "night"),
        ("stays", "stayed"),
    ]
    assert of(HOTEL, Kind.RANGE) == [
        ("rooms", "room"),
        ("nights", "night"),
        ("nights", "price"),
        ("stays", "night"),
    ]
    assert of(HOTEL, Kind.ALLOWED) == [("rooms", "kind")]
    assert of(HOTEL, Kind.UNIQUE) == [
        ("rooms", "room"),
        ("nights", "room", "night"),
        ("stays", "room", "night"),
    ]
    assert of(HOTEL, Kind.REFERENCE) == [("nights", "room")]


def test_nothing_may_happen_after_the_day_and_no_label_before_its_horizon_passed() -> None:
    last = {
        check.table: check.maximum
        for check in checks(HOTEL, as_of=AS_OF)
        if check.columns == ("night",) and check.kind is Kind.RANGE
    }
    assert last == {"nights": date(2024, 1, 31), "stays": date(2024, 1, 29)}


def test_an_instant_may_be_on_the_day() -> None:
    table = with_column(NIGHTS, replace(NIGHTS.column("night"), type=ColumnType.TIMESTAMP))
    (check,) = (
        check
        for check in checks(hotel(table), as_of=AS_OF)
        if check.columns == ("night",) and check.table == "nights" and check.kind is Kind.RANGE
    )
    assert check.maximum == datetime(2024, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)


def test_allowed_values_are_of_the_columns_type() -> None:
    table = with_column(ROOMS, replace(ROOMS.column("room"), allowed=("1", "2")))
    found = [c.allowed for c in checks(hotel(table), as_of=AS_OF) if c.kind is Kind.ALLOWED]
    assert found == [(1, 2), ("single", "double")]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (("rooms", {"name": "note", "minimum": 1}), "rooms.note is text and declares a range"),
        (("rooms", {"name": "room", "allowed": ("one",)}), "rooms.room allows 'one'"),
        (("stays", {"name": "stayed", "allowed": ("yes",)}), "stays.stayed allows 'yes'"),
        (("rooms", {"name": "note", "references": "nights.room"}), "which has another type"),
        (("rooms", {"name": "note", "references": "guests.name"}), "declares no table guests"),
        (("rooms", {"name": "note", "references": "nights.guest"}), "declares no column guest"),
    ],
)
def test_a_check_that_does_not_fit_its_column_is_refused(
    table: tuple[str, dict[str, Any]], message: str
) -> None:
    name, change = table
    declared = HOTEL.table(name)
    column = replace(declared.column(change["name"]), **change)
    with pytest.raises(ConfigurationError, match=message):
        checks(hotel(with_column(declared, column)), as_of=AS_OF)


def test_an_event_time_that_is_no_time_is_refused() -> None:
    table = with_column(STAYS, replace(STAYS.column("night"), type=ColumnType.INTEGER))
    with pytest.raises(ConfigurationError, match=r"stays\.night is an event time and bigint"):
        checks(hotel(table), as_of=AS_OF)


def test_each_limit_of_a_table_is_a_check() -> None:
    nights = replace(
        NIGHTS,
        min_rows=2,
        max_row_change=0.25,
        max_age=timedelta(days=3),
        columns=(
            *NIGHTS.columns[:2],
            replace(NIGHTS.column("price"), max_null_share=1 / 3, unique=True),
            NIGHTS.column("booked"),
        ),
    )
    found = {
        check.kind: check
        for check in checks(hotel(nights), as_of=AS_OF, last_rows={"nights": 10, "rooms": 1})
        if check.table == "nights" and (not check.kind.of_rows or check.columns == ("price",))
    }
    assert (found[Kind.ROWS].minimum, found[Kind.ROWS].maximum) == (2, None)
    assert (found[Kind.ROW_CHANGE].minimum, found[Kind.ROW_CHANGE].maximum) == (8, 12)
    assert found[Kind.FRESH].columns == ("night",)
    assert found[Kind.FRESH].minimum == date(2024, 1, 28)
    share = found[Kind.NULL_SHARE].minimum
    assert isinstance(share, float)
    assert share == pytest.approx(2 / 3)
    assert share < 1 - 1 / 3
    assert found[Kind.UNIQUE].columns == ("price",)


def test_a_first_batch_has_no_number_of_rows_to_be_compared_with() -> None:
    nights = replace(NIGHTS, max_row_change=0.25)
    assert of(hotel(nights), Kind.ROW_CHANGE) == []


def test_the_age_of_an_instant_is_exact() -> None:
    table = with_column(NIGHTS, replace(NIGHTS.column("night"), type=ColumnType.TIMESTAMP))
    (check,) = (
        check
        for check in checks(hotel(replace(table, max_age=timedelta(hours=36))), as_of=AS_OF)
        if check.kind is Kind.FRESH
    )
    assert check.minimum == datetime(2024, 1, 29, 12, tzinfo=UTC)


def with_column(table: Table, column: Column) -> Table:
    columns = tuple(column if c.name == column.name else c for c in table.columns)
    return replace(table, columns=columns)
