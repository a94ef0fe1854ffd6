"""What a person said of their data, or what was taken for sure: kept in a file, to be repeated."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any, Self

from espalier.errors import UsageError

NONE = "none"
# In place of a column: the number of the row in its file.
ROW = "row"


class As(Enum):
    """How a column of a file becomes a feature."""

    INTEGER = "integer"
    DOUBLE = "double"
    # 1 for true, 0 for false.
    TRUTH = "truth"
    # The place of the value among `values`; null for another one.
    CODES = "codes"
    # Days from the day in the column to the row's own.
    DAYS = "days"


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column and what it becomes."""

    source: str
    name: str
    kind: As
    nullable: bool = False
    values: tuple[str, ...] = ()
    date_format: str = ""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Every choice; None where there is none yet.

    Columns are named as in the file. `key` is ("row",) where rows are numbered, `time` is "none"
    for data of one day, which is `as_of`. `positive` is the label's value that counts as true;
    `classes` are all its values in order. `unlabelled` says what becomes of rows without a label:
    "keep" them to be predicted, or "drop" them. `by_month` counts a row at the end of its month.
    """

    key: tuple[str, ...] | None = None
    time: str | None = None
    label: str | None = None
    task: str | None = None
    positive: str | None = None
    classes: tuple[str, ...] | None = None
    as_of: date | None = None
    horizon_days: int | None = None
    unlabelled: str | None = None
    near_perfect: bool | None = None
    by_month: bool | None = None
    drop: tuple[str, ...] | None = None
    text: tuple[str, ...] | None = None
    date_formats: Mapping[str, str] | None = None
    description: str | None = None
    features: tuple[Feature, ...] | None = None

    def over(self, other: Self) -> Self:
        """These answers, and the other ones where these have none."""
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(other, **{name: v for name, v in mine.items() if v is not None})


def read(path: Path) -> Answers:
    """The answers in a TOML file.

    Raises:
        UsageError: it cannot be read, or holds something else.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not TOML: {error}") from error
    kinds = {f.name: str(f.type).removesuffix(" | None") for f in fields(Answers)}
    found["features"] = [_feature(path, one) for one in found.pop("feature", [])] or None
    for name, value in found.items():
        if name not in kinds:
            raise UsageError(f"{path}: unknown answer {name}", fix=f"there are {', '.join(kinds)}")
        if value is not None and not _is(kinds[name], value):
            raise UsageError(f"{path}: {name} = {value!r} is not of its type, {kinds[name]}")
    made: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    return Answers(**made)


def _feature(path: Path, found: Mapping[str, Any]) -> Feature:
    try:
        made = {**found, "kind": As(found["kind"]), "values": tuple(found.get("values", ()))}
        return Feature(**made)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: a [[feature]] is not as new writes it ({error})") from error


def _is(declared: str, value: object) -> bool:
    match declared:
        case "str":
            return isinstance(value, str)
        case "int":
            return type(value) is int
        case "bool":
            return isinstance(value, bool)
        case "date":
            return type(value) is date
        case "tuple[str, ...]":
            return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return isinstance(value, (list, dict))


def text(answers: Answers, *, product: str) -> str:
    """The answers as TOML, without those that there are not."""
    lines = [
        f"# What `new` was told, or took for sure, of {product}'s data. `add-batch` converts later",
        "# files in the same way.",
    ]
    for item in fields(Answers):
        value = getattr(answers, item.name)
        if item.name not in ("features", "date_formats") and value is not None:
            lines.append(f"{item.name} = {_toml(value)}")
    if answers.date_formats:
        lines += ["", "[date_formats]"]
        lines += [f"{_toml(k)} = {_toml(v)}" for k, v in answers.date_formats.items()]
    for feature in answers.features or ():
        lines += ["", "[[feature]]"]
        lines += [f"{k} = {_toml(v)}" for k, v in vars(feature).items() if v not in ("", ())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case date():
            return value.isoformat()
        case Enum():
            return _toml(value.value)
        case tuple():
            return f"[{', '.join(map(_toml, value))}]"
        case int():
            return str(value)
    # A basic string of TOML is one of JSON, but for DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
