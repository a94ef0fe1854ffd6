from __future__ import annotations

from datetime import date

import pandas as pd
import pytest

from espalier.authoring import days


def texts(*values: str) -> pd.Series:
    return pd.Series(values, dtype=object)


@pytest.mark.parametrize(
    ("text", "formats", "day"),
    [
        ("2024-02-29", ["%Y-%m-%d"], "2024-02-29"),
        ("2024-02-29T23:30:00-02:00", ["time"], "2024-03-01"),
        ("2024-02-29 12:00", ["time"], "2024-02-29"),
        ("29.02.2024", ["%d.%m.%Y"], "2024-02-29"),
        ("29/02/2024", ["%d/%m/%Y"], "2024-02-29"),
        ("02/29/2024", ["%m/%d/%Y"], "2024-02-29"),
        ("02/03/2024", ["%d/%m/%Y", "%m/%d/%Y"], "2024-03-02"),
        ("Feb 29, 2024", ["%b %d, %Y"], "2024-02-29"),
        ("2024-02", ["%Y-%m"], "2024-02-29"),
        ("2024Q1", ["quarter"], "2024-03-31"),
        ("2024-Q4", ["quarter"], "2024-12-31"),
        ("2023-02-29", [], None),
        ("30/31/2024", [], None),
        ("tomorrow", [], None),
    ],
)
def test_a_day_is_read_in_the_formats_that_fit(text, formats, day):
    assert days.formats_of(texts(text)) == formats
    if formats:
        assert days.parsed(texts(text), formats[0])[0] == pd.Timestamp(day)


def test_one_value_can_settle_which_of_two_formats_it_is():
    assert days.formats_of(texts("02/03/2024", "13/03/2024")) == ["%d/%m/%Y"]


def test_numbers_may_be_days_or_years():
    assert days.number_format(texts("20240131", "20240229")) == "%Y%m%d"
    assert days.number_format(texts("1935.0", "1936")) == "%Y"
    assert days.number_format(texts("1935", "12")) == ""
    assert days.parsed(texts("1935.0"), "%Y")[0] == pd.Timestamp("1935-12-31")


def test_several_formats_are_shown_by_an_example_each():
    shown = days.several_formats(texts("2024-01-31", "31.01.2024", "2024-02-01"))
    assert shown == "'2024-01-31' (row 2), '31.01.2024' (row 3)"
    assert days.several_formats(texts("2024-01-31", "red", "green", "blue")) == ""


def test_month_ends():
    assert days.month_end(date(2024, 2, 3)) == date(2024, 2, 29)
    assert days.last_month_end(date(2024, 2, 29)) == date(2024, 2, 29)
    assert days.last_month_end(date(2024, 2, 28)) == date(2024, 1, 31)
    assert days.usual_gap([date(2024, 1, 31), date(2024, 2, 29), date(2024, 3, 31)]) == 31
    assert days.usual_gap([date(2024, 1, 31)]) == 31
