"""Cuts rows into the batches in which they would have become known, each at a month's end."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import pandas as pd

from espalier.authoring import days
from espalier.authoring.answers import NONE, Answers
from espalier.authoring.convert import Converted, convert
from espalier.authoring.kinds import first_row
from espalier.authoring.source import Sheet
from espalier.errors import BadData
from espalier.project import Calendar, batch_folder

# What came before the newest months is the history that month_000 brings.
_MONTHS_OF_THEIR_OWN = 6
_SHORTEST_TTL, _TTL_OF_ONE_DAY = 45, 366
_MONTH_IN_NAME = re.compile(r"(?<!\d)(\d{4})[-_]?(0[1-9]|1[0-2])(?:[-_]?\d\d)?(?!\d)")

# Of rows that came in files named by months.
FILE_MONTH = "file_month"

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Batches:
    """The seed tables by the day on which they are known, and what follows from the days."""

    tables: Mapping[date, Tables]
    ttl_days: int
    waiting_rows: int = 0
    waiting_labels: int = 0

    @property
    def first(self) -> date:
        """The day of month_000."""
        return min(self.tables)

    def folders(self) -> Mapping[str, Tables]:
        """The same by the folder's name."""
        calendar = Calendar(first=self.first)
        return {batch_folder(calendar.month(day)): made for day, made in self.tables.items()}


def all_rows(sheets: Sequence[Sheet]) -> pd.DataFrame:
    """The rows of all files; where every name tells a month, `file_month` has its end."""
    if len(sheets) == 1:
        return sheets[0].rows
    named = [_MONTH_IN_NAME.search(sheet.path.name) for sheet in sheets]
    months = [days.month_end(date(int(n[1]), int(n[2]), 1)) for n in named if n is not None]
    if len(months) < len(sheets) or len(set(months)) < len(months):
        return pd.concat([sheet.rows for sheet in sheets], ignore_index=True)
    return pd.concat(
        [with_month(one.rows, day) for one, day in zip(sheets, months, strict=True)],
        ignore_index=True,
    )


def with_month(rows: pd.DataFrame, day: date) -> pd.DataFrame:
    """The rows of one file with its day as a column."""
    return rows.assign(**{FILE_MONTH: day.isoformat()})


def of_one_day(made: Converted) -> Batches:
    """One batch, whose rows are all of its day."""
    every = pd.Series(data=True, index=made.day.index)
    return Batches({made.day.iloc[0].date(): made.tables(_wanted(made), every)}, _TTL_OF_ONE_DAY)


def counted_by_month(answers: Answers, rows: pd.DataFrame) -> Answers:
    """Whether a row may count at the end of its month: no key comes twice within one."""
    if answers.time == NONE or answers.by_month is not None:
        return replace(answers, by_month=bool(answers.by_month))
    made = convert(rows, replace(answers, features=(), by_month=True), as_of=None)
    again = pd.DataFrame({"key": made.key, "day": made.day}).duplicated().any()
    return replace(answers, by_month=not again)


def by_month(made: Converted, *, today: date) -> Batches:
    """The rows of a file with a time column.

    The newest months have a batch each, what came before is in the first one. Rows that count by
    their own days are all in one: in a later month's batch they would only be known at its end. The
    rows of a month that has not ended wait, and so do labels whose horizon ends after the last
    batch.

    Raises:
        BadData: no month has ended.
    """
    ends = made.day + pd.offsets.MonthEnd(0)
    ended = ends <= pd.Timestamp(today)
    if not ended.any():
        raise BadData(
            "no month of the file has ended yet", fix="bring rows of months that are over"
        )
    month_ends = sorted(stamp.date() for stamp in ends[ended].unique())
    own = _MONTHS_OF_THEIR_OWN if made.answers.by_month else 1
    batch_days = month_ends[-own:]
    horizon = timedelta(days=made.answers.horizon_days or 0)
    known = made.day + horizon
    wanted = _wanted(made)
    tables, before = {}, pd.Timestamp.min
    for day in batch_days:
        until = pd.Timestamp(day)
        rows = wanted & (ends > before) & (ends <= until)
        labels = ended & (known > before) & (known <= until)
        tables[day] = made.tables(rows, labels)
        before = until
    return Batches(
        tables,
        max(_SHORTEST_TTL, days.usual_gap(month_ends) * 3 // 2),
        waiting_rows=int((~ended).sum()),
        waiting_labels=int((ended & (known > before) & made.label.notna()).sum()),
    )


def later(made: Converted, as_of: date, *, after: date) -> Tables:
    """The tables of a later batch; a label that is not known by its day is left to the next one.

    Raises:
        BadData: a row is of a day after `as_of`.
    """
    late = made.day > pd.Timestamp(as_of)
    if late.any():
        raise BadData(
            f"row {first_row(late)} is of {made.written[late].iloc[0].date()}, after {as_of}",
            fix="give the month's end that they are known on by --as-of",
        )
    horizon = timedelta(days=made.answers.horizon_days or 0)
    known = made.day + horizon <= pd.Timestamp(as_of)
    new = made.day > pd.Timestamp(after)
    return made.tables(_wanted(made) & new, known)


def _wanted(made: Converted) -> pd.Series:
    """The rows that are kept: all, or those with a label."""
    if made.answers.unlabelled == "drop":
        return made.label.notna()
    return pd.Series(data=True, index=made.label.index)
