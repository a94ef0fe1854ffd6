"""What the files hold, as answers: each given, sure, or an open question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import pandas as pd

from espalier.authoring import days, kinds, roles, tasks
from espalier.authoring.answers import NONE, ROW, Answers, As, Feature
from espalier.authoring.kinds import Kind, Profile
from espalier.authoring.names import identifier, identifiers
from espalier.authoring.roles import GIVEN, SURE, Guess, Question
from espalier.errors import BadData
from espalier.project import Task

MOST_CODES = 20
# Of a part of the key, which is worth more columns.
_MOST_CODES_OF_KEY = 50


@dataclass(frozen=True)
class Inference:
    """All that was found; `answers` is complete when there is no question and no problem."""

    answers: Answers
    profiles: Mapping[str, Profile]
    guesses: tuple[Guess, ...]
    questions: tuple[Question, ...]
    problems: tuple[BadData, ...]
    left_out: Mapping[str, str]


def infer(rows: pd.DataFrame, given: Answers, *, today: date) -> Inference:
    """Look at all rows; `given` is what a person said, and wins.

    Args:
        rows: Texts, None for null, numbered from 0.
        given: What is settled.
        today: The day on which this is asked.

    Raises:
        EspalierError: an answer does not fit the file, or the label cannot be predicted.
    """
    roles.known_columns(given, list(rows.columns))
    formats = dict(given.date_formats or {})
    profiles = {
        name: kinds.profile(name, rows[name], as_text=name in (given.text or ()), formats=formats)
        for name in rows.columns
        if name not in (given.drop or ()) or name in (given.key or ())
    }
    time, ask_time = roles.time_of(given, profiles, rows)
    key, ask_key = roles.key_of(given, time.value if ask_time is None else NONE, profiles, rows)
    label, ask_label = roles.label_of(given, profiles)
    guesses, questions = [key, time, label], [ask_time, ask_key, ask_label]
    found = replace(
        given,
        key=(key.value,) if given.key is None else given.key,
        time=time.value,
        label=label.value,
        date_formats=formats,
    )
    if ask_label is None:
        found, more, asked = _of_label(found, profiles[label.value], rows[label.value])
        guesses, questions = [*guesses, *more], [*questions, *asked]
    if ask_time is None:
        found, more, asked = _of_time(found, rows, today)
        guesses, questions = [*guesses, *more], [*questions, *asked]
    open_ones = [question for question in questions if question is not None]
    features, left_out, problems = _features(found, profiles)
    if ask_label is None and (problem := profiles[label.value].problem):
        problems.append(problem)
    open_ones += _ambiguous(found, features, profiles)
    return Inference(
        answers=replace(found, features=tuple(features)),
        profiles=profiles,
        guesses=tuple(guesses),
        questions=tuple(open_ones),
        problems=tuple(problems),
        left_out=left_out,
    )


_More = tuple[Answers, list[Guess], list[Question | None]]


def _of_label(found: Answers, label: Profile, values: pd.Series) -> _More:
    if label.distinct < 2:
        raise BadData(
            f"label {label.name!r} is the same in every row" if label.distinct else
            f"label {label.name!r} has no value",
            fix="there is nothing to learn; choose another column by --label",
        )  # fmt: skip
    task, ask_task = tasks.task_of(found, label, values)
    guesses, asked = [task], [ask_task]
    if ask_task is None:
        found = replace(found, task=task.value)
    if task.value == Task.BINARY.value:
        positive, ask = tasks.positive_of(found, values)
        guesses, asked = [*guesses, positive], [*asked, ask]
        found = replace(found, positive=positive.value)
    if task.value != Task.REGRESSION.value and ask_task is None:
        found = replace(found, classes=tasks.classes_of(found, label, values))
    if label.nulls and found.unlabelled is None:
        asked.append(
            Question(
                "--unlabelled",
                f"{label.nulls:,} of {label.rows:,} rows have no label: keep them, to be "
                "predicted, or drop them?",
                ("--unlabelled keep", "--unlabelled drop"),
            )
        )
    return found, guesses, asked


def _of_time(found: Answers, rows: pd.DataFrame, today: date) -> _More:
    assert found.time is not None
    if found.time == NONE:
        as_of = found.as_of or days.last_month_end(today)
        sure = GIVEN if found.as_of else SURE
        reason = "" if found.as_of else "the newest month end; --as-of for another"
        guess = Guess("as of", as_of.isoformat(), sure, reason)
        return replace(found, as_of=as_of, horizon_days=found.horizon_days or 0), [guess], []
    formats = dict(found.date_formats or {})
    if found.time not in formats:
        known = kinds.without_null_words(rows[found.time])
        fitting = days.formats_of(known) or list(filter(None, [days.number_format(known)]))
        if not fitting:
            raise BadData(
                f"time column {found.time!r} holds no days: {kinds.shown(known)}",
                fix="name its format by --date-format COLUMN=%d.%m.%Y, or another --time",
            )
        if len(fitting) == 1:
            formats[found.time] = fitting[0]
    found = replace(found, date_formats=formats)
    if found.horizon_days is not None:
        reason = "days after which the label is known"
        return found, [Guess("horizon", str(found.horizon_days), GIVEN, reason)], []
    question = Question(
        "--horizon-days N",
        f"how many days after {found.time} is the label known? 0 when at once",
        ("--horizon-days 0",),
    )
    return found, [], [question]


def _features(
    found: Answers, profiles: Mapping[str, Profile]
) -> tuple[list[Feature], dict[str, str], list[BadData]]:
    """What becomes of each column that is no label and no time."""
    key = found.key or ()
    candidates = [
        n
        for n in profiles
        if n not in (found.label, found.time)
        and n not in (found.drop or ())
        and (n not in key or len(key) > 1)
    ]
    names = identifiers(candidates, also_taken=[key_name(found)])
    features, left_out, problems = [], {}, []
    for name in candidates:
        profile = profiles[name]
        why = _why_not(profile, part_of_key=name in key)
        if why:
            left_out[name] = why
        elif profile.problem is not None:
            problems.append(profile.problem)
        else:
            features.append(_feature(found, profile, names[name], part_of_key=name in key))
    return features, left_out, problems


def key_name(found: Answers) -> str:
    """The join key's name: the key's, or those of its parts."""
    key = found.key or ()
    if key == (ROW,):
        return "row_id"
    return next(iter(identifiers(["_".join(map(identifier, key))]).values()))


def _why_not(profile: Profile, *, part_of_key: bool) -> str:
    if profile.kind is Kind.EMPTY:
        return "it has no value"
    if profile.distinct == 1 and not profile.nulls:
        return "it is the same in every row"
    most = _MOST_CODES_OF_KEY if part_of_key else min(MOST_CODES, max(2, profile.rows // 3))
    coded = profile.kind is Kind.TEXT or part_of_key
    # What is mostly numbers or days is a problem to be told, not a text to be left out.
    if coded and profile.problem is None and profile.distinct > most:
        return f"text of {profile.distinct:,} different values; above {most} it is no category"
    if profile.kind is Kind.INTEGER and profile.unique and _named_like_a_key(profile.name):
        return "it is named like a key and unique"
    return ""


def _named_like_a_key(name: str) -> bool:
    return identifier(name).split("_")[-1] in ("id", "nr", "no", "uuid", "key")


def _feature(found: Answers, profile: Profile, name: str, *, part_of_key: bool) -> Feature:
    nullable = profile.nulls > 0

    def made(kind: As, **more: object) -> Feature:
        return Feature(source=profile.name, name=name, kind=kind, nullable=nullable, **more)  # type: ignore[arg-type]

    if profile.kind is Kind.TEXT or part_of_key:
        # A value that is not among them is null.
        return replace(made(As.CODES), nullable=True)
    if profile.kind is Kind.DATE:
        form = (found.date_formats or {}).get(profile.name, profile.date_format)
        return made(As.DAYS, date_format=form)
    kind = {Kind.BOOLEAN: As.TRUTH, Kind.INTEGER: As.INTEGER, Kind.DOUBLE: As.DOUBLE}[profile.kind]
    return made(kind)


def _ambiguous(
    found: Answers, features: Sequence[Feature], profiles: Mapping[str, Profile]
) -> list[Question]:
    """The columns of days that could be read in more than one way."""
    used = {f.source for f in features if f.kind is As.DAYS} | {found.time}
    return [
        Question(
            "--date-format COLUMN=FORMAT",
            f"column {name!r} has days that can be read as {' or as '.join(p.maybe_formats)}",
            tuple(f"--date-format {name}={form}" for form in p.maybe_formats),
        )
        for name, p in profiles.items()
        if name in used and len(p.maybe_formats) > 1 and name not in (found.date_formats or {})
    ]


def with_codes(found: Inference, rows: pd.DataFrame) -> Answers:
    """The answers, with the values of each category in order."""
    features = tuple(
        replace(f, values=_values(rows[f.source], found.profiles[f.source]))
        if f.kind is As.CODES
        else f
        for f in found.answers.features or ()
    )
    return replace(found.answers, features=features)


def _values(values: pd.Series, profile: Profile) -> tuple[str, ...]:
    there = values.dropna().unique()
    return tuple(sorted(there, key=float) if profile.kind is Kind.INTEGER else sorted(there))
