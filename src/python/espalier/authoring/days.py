"""Days written in the ways that files have them; a year, quarter or month counts by its last day."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from itertools import pairwise

import pandas as pd

from espalier.project import Calendar

ISO, TIME, QUARTER, MONTH, YEAR = "%Y-%m-%d", "time", "quarter", "%Y-%m", "%Y"
# What a value looks like in each format; the parser then says whether it is a day.
_FORMS = {
    ISO: r"\d{4}-\d{1,2}-\d{1,2}",
    TIME: r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?",
    "%Y/%m/%d": r"\d{4}/\d{1,2}/\d{1,2}",
    "%d/%m/%Y": r"\d{1,2}/\d{1,2}/\d{4}",
    "%m/%d/%Y": r"\d{1,2}/\d{1,2}/\d{4}",
    "%d.%m.%Y": r"\d{1,2}\.\d{1,2}\.\d{4}",
    "%d-%m-%Y": r"\d{1,2}-\d{1,2}-\d{4}",
    "%m-%d-%Y": r"\d{1,2}-\d{1,2}-\d{4}",
    "%d %b %Y": r"\d{1,2} [A-Za-z]{3} \d{4}",
    "%b %d, %Y": r"[A-Za-z]{3} \d{1,2}, \d{4}",
    "%b %d %Y": r"[A-Za-z]{3} \d{1,2} \d{4}",
    MONTH: r"\d{4}-\d\d",
    QUARTER: r"\d{4}-?[Qq][1-4]",
}
# A number may be such a day or period only where a person, or the column's name, says so.
_NUMBERS = {"%Y%m%d": r"\d{8}", YEAR: r"(?:1[5-9]|20)\d\d(?:\.0)?"}
FORMATS = (*_FORMS, *_NUMBERS)


def parsed(values: pd.Series, form: str) -> pd.Series:
    """The days as datetime64 without a zone; NaT where a value is none of that format.

    A time counts by its day in UTC.
    """
    shape = {**_FORMS, **_NUMBERS}.get(form, ".+")
    fits = values.str.fullmatch(shape)
    texts = values.where(fits.astype(bool))
    if form == TIME:
        found = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
        return found.dt.tz_localize(None).dt.normalize()
    if form in (QUARTER, MONTH, YEAR):
        frequency = {QUARTER: "Q", MONTH: "M", YEAR: "Y"}[form]
        plain = texts.str.upper().str.replace("-Q", "Q").str.removesuffix(".0")
        last = {t: _last_day(t, frequency) for t in plain.dropna().unique()}
        return pd.to_datetime(plain.map(last))
    return pd.to_datetime(texts, format=form, errors="coerce")


def formats_of(values: pd.Series) -> list[str]:
    """The formats that every one of the values has; more than one when that is ambiguous."""
    sample = values.drop_duplicates()
    return [
        form
        for form, shape in _FORMS.items()
        if re.fullmatch(shape, sample.iloc[0]) and parsed(sample, form).notna().all()
    ]


def number_format(values: pd.Series) -> str:
    """The format of numbers that may be days or years; empty when they cannot be."""
    sample = values.drop_duplicates()
    return next((f for f in _NUMBERS if parsed(sample, f).notna().all()), "")


def several_formats(values: pd.Series) -> str:
    """An example of each format, when most values are days, though not of one format."""
    left, told = values, []
    for form in _FORMS:
        fits = parsed(left, form).notna()
        if fits.any():
            first = left[fits].index[0]
            told.append(f"{left[first]!r} (row {int(first) + 2})")
        left = left[~fits]
        if left.empty:
            break
    if not told or len(left) > len(values) / 2:
        return ""
    if len(left):
        told.append(f"{left.iloc[0][:30]!r} (row {int(left.index[0]) + 2})")
    return ", ".join(told)


def month_end(day: date) -> date:
    """The last day of a day's month."""
    return Calendar(first=day).as_of(0)


def last_month_end(today: date) -> date:
    """The newest month end up to a day."""
    return Calendar(first=today).newest(today)


def usual_gap(month_ends: Sequence[date]) -> int:
    """The days between two neighbours, as usual; 31 of one alone."""
    gaps = sorted((b - a).days for a, b in pairwise(month_ends))
    return gaps[len(gaps) // 2] if gaps else 31


def _last_day(text: str, frequency: str) -> pd.Timestamp | None:
    try:
        return pd.Period(text, frequency).end_time.normalize()
    except ValueError:
        return None
