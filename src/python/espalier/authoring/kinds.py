"""What the values of a column are: numbers, dates, true and false, or text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import pandas as pd

from espalier.authoring import days
from espalier.errors import BadData

# What files hold for "not known" where the others are numbers or dates.
NULLS = frozenset(
    {"?", "-", "na", "n/a", "nan", "null", "none", "nil", "missing", "#n/a", "nat", "<na>"}
)
_INTEGER = r"[+-]?\d{1,18}"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_INFINITE = r"[+-]?inf(?:inity)?"
_THOUSANDS = r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?"
_LEADING_ZERO = r"0\d+"
_TRUTHS = ({"true", "false"}, {"t", "f"}, {"yes", "no"}, {"y", "n"})
TRUE = frozenset({"true", "t", "yes", "y", "1", "1.0"})


class Kind(Enum):
    """A column's kind."""

    EMPTY = "nothing"
    BOOLEAN = "true or false"
    INTEGER = "whole numbers"
    DOUBLE = "numbers"
    DATE = "dates"
    TEXT = "text"


@dataclass(frozen=True)
class Profile:
    """What is known of a column.

    `distinct` counts values without nulls; `date_format` is that of dates (see
    `espalier.authoring.days`), `maybe_formats` those that fit as well; `problem` says why it cannot
    be taken as it is, and is of no matter when the column is left out.
    """

    name: str
    kind: Kind
    rows: int
    nulls: int
    distinct: int
    date_format: str = ""
    maybe_formats: tuple[str, ...] = ()
    problem: BadData | None = None

    @property
    def unique(self) -> bool:
        """Whether every row has a value of its own."""
        return self.nulls == 0 and self.distinct == self.rows


def with_nulls(values: pd.Series) -> pd.Series:
    """The values with null in the place of words for it."""
    return values.mask(values.str.lower().isin(NULLS), None)


def without_null_words(values: pd.Series) -> pd.Series:
    """The values that are there, without words for null."""
    return with_nulls(values).dropna()


def profile(
    name: str, values: pd.Series, *, as_text: bool = False, formats: Mapping[str, str] | None = None
) -> Profile:
    """The profile of a column of texts.

    Args:
        name: The column.
        values: Its values, None for null.
        as_text: Whether it is to be taken for text whatever it holds.
        formats: The formats of date columns that a person gave.
    """
    there = values.dropna()
    known = without_null_words(values)

    def made(kind: Kind, of: pd.Series, **more: object) -> Profile:
        return Profile(name, kind, len(values), len(values) - len(of), of.nunique(), **more)  # type: ignore[arg-type]

    if known.empty:
        return made(Kind.EMPTY, known)
    if as_text:
        return made(Kind.TEXT, there)
    given = (formats or {}).get(name, "")
    fitting = [given] if given else days.formats_of(known)
    if fitting:
        wrong = known[days.parsed(known, fitting[0]).isna()]
        problem = _not_of(name, given, wrong)
        options = tuple(fitting)
        return made(
            Kind.DATE, known, date_format=fitting[0], maybe_formats=options, problem=problem
        )
    lower = set(known.str.lower().unique()) if known.nunique() <= 2 else set()
    if lower and any(lower <= truth for truth in _TRUTHS):
        return made(Kind.BOOLEAN, known)
    if (found := _number(name, known)) is not None:
        kind, problem = found
        return made(kind, known, problem=problem)
    return made(Kind.TEXT, there, problem=_mixed(name, known))


def _number(name: str, known: pd.Series) -> tuple[Kind, BadData | None] | None:
    """Whether these are numbers, and what is wrong with them; None for others."""
    numbers = known.str.fullmatch(_NUMBER)
    infinite = known.str.fullmatch(_INFINITE, flags=re.IGNORECASE)
    if not (numbers | infinite).all():
        return None
    if infinite.any():
        problem = BadData(
            f"column {name!r} has infinite values: {shown(known[infinite])}",
            fix=f"leave those fields empty, or --drop {name}",
        )
        return Kind.DOUBLE, problem
    if known.str.fullmatch(_LEADING_ZERO).any():
        # 00004 is a name and no number: it would lose its zeros.
        return Kind.TEXT, None
    if known.str.fullmatch(_INTEGER).all():
        return Kind.INTEGER, None
    return Kind.DOUBLE, None


def _mixed(name: str, known: pd.Series) -> BadData | None:
    """What is wrong with text that is mostly something else."""
    drop = f"--drop {name}"
    thousands = known.str.fullmatch(_THOUSANDS)
    if thousands.any() and (thousands | known.str.fullmatch(_NUMBER)).all():
        return BadData(
            f"column {name!r} has commas within numbers: {shown(known[thousands])}",
            fix=f"write 1234.5 for 1,234.5, or {drop}",
        )
    other = known[~known.str.fullmatch(_NUMBER)]
    if len(other) <= len(known) / 2:
        return BadData(
            f"column {name!r} mixes numbers with text: {shown(other)}",
            fix=f"mend those, or --text {name} to take all as text, or {drop}",
        )
    several = days.several_formats(known)
    if several:
        return BadData(
            f"column {name!r} has dates in several formats: {several}",
            fix=f"write all as 2024-01-31, or {drop}",
        )
    return None


def _not_of(name: str, date_format: str, wrong: pd.Series) -> BadData | None:
    if wrong.empty:
        return None
    return BadData(
        f"column {name!r} is not all of the format {date_format}: {shown(wrong)}",
        fix="mend those, or give the format that they have",
    )


def first_row(marked: pd.Series) -> int:
    """The row of the first mark as a person counts it, the header being row 1."""
    return int(marked.to_numpy(bool).argmax()) + 2


def shown(values: pd.Series, most: int = 3) -> str:
    """Some values with the rows they stand in, the header being row 1."""
    few = values.head(most)
    told = [
        f"{str(v)[:30]!r} (row {i + 2})"
        for i, v in zip(few.index.tolist(), few.tolist(), strict=True)
    ]
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(told) + more
