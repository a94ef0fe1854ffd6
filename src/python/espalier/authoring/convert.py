"""Rows of a person's files as rows of the product's tables, by the answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import pandas as pd

from espalier.authoring import days
from espalier.authoring.answers import NONE, ROW, Answers, As, Feature
from espalier.authoring.infer import key_name
from espalier.authoring.kinds import TRUE, first_row, with_nulls
from espalier.errors import BadData
from espalier.project import Task

FEATURE_DATE, LABEL_DATE, LABEL = "feature_date", "label_date", "label_value"


@dataclass(frozen=True)
class Converted:
    """Rows by their numbers in the file: keys, days and features as texts, None for null.

    `day` is what a row counts for, `written` what its file says: the same, or a day of the month
    that ends with it. `unknown` counts, by feature, values that are no declared category.
    """

    answers: Answers
    key: pd.Series
    written: pd.Series
    day: pd.Series
    features: pd.DataFrame
    label: pd.Series
    unknown: dict[str, int]

    def tables(self, mask: pd.Series, known_label: pd.Series) -> dict[str, pd.DataFrame]:
        """The rows of a batch as the seed files `features` and `labels`, sorted.

        Args:
            mask: Which features are of the batch.
            known_label: Which labels become known with it.
        """
        name = key_name(self.answers)
        day = self.day.dt.strftime("%Y-%m-%d")
        features = self.features.assign(**{name: self.key, FEATURE_DATE: day})
        columns = [name, FEATURE_DATE, *self.features.columns]
        labels = pd.DataFrame({name: self.key, LABEL_DATE: day, LABEL: self.label})
        there = known_label & self.label.notna()
        return {
            "features": features.loc[mask, columns].sort_values([FEATURE_DATE, name]),
            "labels": labels[there].sort_values([LABEL_DATE, name]),
        }


def convert(
    rows: pd.DataFrame, answers: Answers, *, as_of: date | None, before: int = 0
) -> Converted:
    """All rows of a file.

    Args:
        rows: Texts as read.
        answers: Complete.
        as_of: The day of rows without a time of their own.
        before: How many rows came before these, where rows are numbered.

    Raises:
        BadData: a row has no key or no day, or a value is not of the declared kind.
    """
    written = _days(rows, answers, as_of)
    day = written + pd.offsets.MonthEnd(0) if answers.by_month else written
    unknown: dict[str, int] = {}
    features = {f.name: _feature(rows[f.source], f, day, unknown) for f in answers.features or ()}
    return Converted(
        answers=answers,
        key=_keys(rows, answers, before),
        written=written,
        day=day,
        features=pd.DataFrame(features, dtype=object),
        label=_labels(rows, answers),
        unknown=unknown,
    )


def _keys(rows: pd.DataFrame, answers: Answers, before: int) -> pd.Series:
    key = answers.key or ()
    if key == (ROW,):
        return pd.Series(range(before + 1, before + len(rows) + 1)).astype(str)
    for name in key:
        if (missing := rows[name].isna()).any():
            raise BadData(
                f"key column {name!r} is empty in {missing.sum():,} rows, first in row "
                f"{first_row(missing)}",
                fix="every row needs its key",
            )
    if len(key) == 1:
        return rows[key[0]]
    return joined([rows[name] for name in key])


def joined(parts: list[pd.Series]) -> pd.Series:
    r"""The parts of a composite key as one text: joined by |, with | and \ escaped by \."""
    escaped = [
        part.str.replace("\\", "\\\\", regex=False).str.replace("|", "\\|", regex=False)
        for part in parts
    ]
    found, *others = escaped
    for part in others:
        found = found.str.cat(part, sep="|")
    return found


def _days(rows: pd.DataFrame, answers: Answers, as_of: date | None) -> pd.Series:
    if answers.time == NONE:
        assert as_of is not None
        return pd.Series(pd.Timestamp(as_of), index=rows.index)
    assert answers.time is not None
    values = with_nulls(rows[answers.time])
    found = days.parsed(values, (answers.date_formats or {})[answers.time])
    if (wrong := found.isna()).any():
        row = first_row(wrong)
        value = rows[answers.time].iloc[row - 2]
        raise BadData(
            f"time column {answers.time!r} is no day in {wrong.sum():,} rows, first in row "
            f"{row}: {'nothing' if value is None else repr(value)}",
            fix="every row needs its day",
        )
    return found


def _feature(
    values: pd.Series, feature: Feature, day: pd.Series, unknown: dict[str, int]
) -> pd.Series:
    match feature.kind:
        case As.CODES:
            places = {value: str(place) for place, value in enumerate(feature.values)}
            found = values.map(places, na_action="ignore")
            if missed := int((found.isna() & values.notna()).sum()):
                unknown[feature.name] = missed
        case As.TRUTH:
            found = (
                with_nulls(values).str.lower().map(lambda v: "1" if v in TRUE else "0", "ignore")
            )
        case As.DAYS:
            there = with_nulls(values)
            past = days.parsed(there, feature.date_format)
            _check_all(feature, there, past)
            distance = (day.dt.normalize() - past).dt.days
            found = distance.map(lambda d: str(int(d)), na_action="ignore")
        case _:
            found = with_nulls(values)
    return found.astype(object).where(found.notna(), None)


def _check_all(feature: Feature, there: pd.Series, past: pd.Series) -> None:
    wrong = there[there.notna() & past.isna()]
    if not wrong.empty:
        raise BadData(
            f"column {feature.source!r} row {int(wrong.index[0]) + 2}: {wrong.iloc[0]!r} is no day "
            f"of the format {feature.date_format}",
            fix="write it as the others are",
        )


def _labels(rows: pd.DataFrame, answers: Answers) -> pd.Series:
    if answers.label not in rows.columns:
        return pd.Series(None, index=rows.index, dtype=object)
    values = with_nulls(rows[answers.label])
    known = values.notna()
    if answers.task == Task.BINARY.value:
        strange = known & ~values.isin(answers.classes or ())
        found = values.map(lambda v: "true" if v == answers.positive else "false", "ignore")
    elif answers.task == Task.MULTICLASS.value:
        strange, found = known & ~values.isin(answers.classes or ()), values
    else:
        strange, found = known & pd.to_numeric(values, errors="coerce").isna(), values
    if strange.any():
        row = first_row(strange)
        raise BadData(
            f"label {answers.label!r} row {row}: {values.iloc[row - 2]!r} is none of the declared",
            fix="mend it, or declare the new class in project.py and answers.toml",
        )
    return found.astype(object).where(known, None)
