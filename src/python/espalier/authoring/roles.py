"""Which column is the key, the time and the label: what the files tell, and how surely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from espalier.authoring import days
from espalier.authoring.answers import NONE, ROW, Answers
from espalier.authoring.kinds import Kind, Profile
from espalier.authoring.names import identifier
from espalier.errors import UsageError

GIVEN, SURE, OPEN = "given", "sure", "open"
_KEY_WORDS = frozenset({"id", "ids", "key", "uuid", "guid", "nr", "no", "number"})
_LABEL_NAMES = frozenset({"label", "target", "y", "class", "outcome", "response"})
_YEAR_WORDS = frozenset({"year", "yr", "date", "day", "quarter", "month"})


@dataclass(frozen=True)
class Guess:
    """A value with how sure it is and why; where it is open, `value` is only the likeliest."""

    what: str
    value: str
    sure: str
    reason: str


@dataclass(frozen=True)
class Question:
    """What only a person can say: the option that answers it, and what could be said."""

    option: str
    text: str
    choices: tuple[str, ...] = ()

    def told(self) -> str:
        """The question with its option on one line."""
        return f"{self.text}; say {' or '.join(self.choices[:6]) or self.option}"


Found = tuple[Guess, Question | None]


def known_columns(given: Answers, columns: Sequence[str]) -> None:
    """Refuse answers that name columns which are not there.

    Raises:
        UsageError: it names them and what there is.
    """
    named = [
        *(given.key or ()),
        *filter(None, [given.time, given.label]),
        *(given.drop or ()),
        *(given.text or ()),
        *(given.date_formats or {}),
    ]
    unknown = [n for n in named if n not in columns and n not in (NONE, ROW)]
    if unknown:
        raise UsageError(
            f"no column {', '.join(map(repr, unknown))} in the file",
            fix=f"there are {', '.join(columns)}",
        )


def time_of(given: Answers, profiles: Mapping[str, Profile], rows: pd.DataFrame) -> Found:
    """The column that says when a row's facts happened."""
    if given.time is not None:
        return Guess("time", given.time, GIVEN, _time_reason(given.time)), None
    dates = [p.name for p in profiles.values() if p.kind is Kind.DATE]
    dates += [p.name for p in profiles.values() if _is_period(p, rows)]
    dates = [name for name in dates if name != given.label]
    if not dates:
        return Guess("time", NONE, SURE, "no column holds days: the files are of one day"), None
    told = f"which column says when a row's facts were so? {', '.join(dates)} could"
    question = Question("--time COLUMN", told, (*(f"--time {d}" for d in dates), f"--time {NONE}"))
    if len(dates) == 1 and (key := _repeated_key(given, profiles, rows, dates[0])):
        reason = f"the only column of days, and {key} comes once for each"
        return Guess("time", dates[0], SURE, reason), None
    return Guess("time", dates[0], OPEN, "it holds days"), question


def _time_reason(time: str) -> str:
    return "the files are of one day" if time == NONE else "when a row's facts were so"


def _is_period(profile: Profile, rows: pd.DataFrame) -> bool:
    """Whether numbers may be years or days, by their column's name and values."""
    words = set(identifier(profile.name).split("_"))
    if profile.kind not in (Kind.INTEGER, Kind.DOUBLE) or not words & _YEAR_WORDS:
        return False
    values = rows[profile.name].dropna()
    return bool(days.number_format(values)) and len(values.unique()) > 1


def _repeated_key(
    given: Answers, profiles: Mapping[str, Profile], rows: pd.DataFrame, time: str
) -> str:
    """The key that comes again, but once at each time."""
    if given.key:
        candidates = [given.key]
    else:
        candidates = [(p.name,) for p in _key_like(profiles) if not p.unique]
    for key in candidates:
        if ROW in key:
            continue
        parts = list(key)
        again = rows.duplicated(parts).any()
        if again and not rows.duplicated([*parts, time]).any():
            return ", ".join(key)
    return ""


def key_of(given: Answers, time: str, profiles: Mapping[str, Profile], rows: pd.DataFrame) -> Found:
    """The columns that identify whom a row is about."""
    per = "" if time == NONE else f" for each {time}"
    if given.key is not None:
        reason = "rows are numbered" if given.key == (ROW,) else f"one row{per}"
        return Guess("key", ", ".join(given.key), GIVEN, reason), None
    others = {name: p for name, p in profiles.items() if name not in (time, given.label)}
    named = [
        p.name
        for p in _key_like(others)
        if p.unique or (per and p.nulls == 0 and not rows.duplicated([p.name, time]).any())
    ]
    if len(named) == 1:
        count = f"unique in all {len(rows):,} rows{per}"
        return Guess("key", named[0], SURE, f"named like a key, {count}"), None
    keys = (Kind.INTEGER, Kind.TEXT)
    unique = named or [p.name for p in others.values() if p.unique and p.kind in keys]
    choices = (*(f"--key {name}" for name in unique), "--key A,B", f"--key {ROW}")
    if unique:
        question = Question(
            "--key COLUMN", f"is {' or '.join(unique)} what identifies a row{per}?", choices
        )
        return Guess("key", unique[0], OPEN, "its values are unique"), question
    text = f"no column alone identifies a row{per}: name several as A,B, or number the rows"
    return Guess("key", "?", OPEN, "no column is unique"), Question("--key", text, choices)


def _key_like(profiles: Mapping[str, Profile]) -> list[Profile]:
    return [
        p
        for p in profiles.values()
        if p.kind in (Kind.INTEGER, Kind.TEXT)
        and p.nulls == 0
        and (set(identifier(p.name).split("_")) & _KEY_WORDS or identifier(p.name).endswith("id"))
    ]


def label_of(given: Answers, profiles: Mapping[str, Profile]) -> Found:
    """The column to predict."""
    if given.label is not None:
        return Guess("label", given.label, GIVEN, "what is predicted"), None
    named = [name for name in profiles if identifier(name) in _LABEL_NAMES]
    if len(named) == 1:
        return Guess("label", named[0], SURE, "the only column of such a name"), None
    last = list(profiles)[-1]
    likely = named or [last]
    question = Question(
        "--label COLUMN",
        "which column is to be predicted?",
        tuple(f"--label {name}" for name in likely),
    )
    return Guess("label", likely[0], OPEN, "the last column" if not named else "by name"), question
