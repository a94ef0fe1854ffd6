from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from espalier.authoring.answers import Answers, As, Feature, read, text
from espalier.errors import UsageError

ALL = Answers(
    key=("site", 'a "b"'),
    time="day",
    label="y",
    task="multiclass",
    classes=("1", "ä\x7f"),
    as_of=date(2024, 1, 31),
    horizon_days=0,
    near_perfect=True,
    date_formats={"day of": "%d.%m.%Y"},
    features=(
        Feature(source="plan", name="plan", kind=As.CODES, nullable=True, values=("a", "b\\")),
        Feature(source="since", name="since", kind=As.DAYS, date_format="%Y-%m-%d"),
    ),
)


def test_what_is_written_is_read_again(tmp_path: Path):
    path = tmp_path / "answers.toml"
    path.write_text(text(ALL, product="shop"))
    assert read(path) == ALL


def test_what_was_said_now_wins():
    assert Answers(label="z").over(ALL).label == "z"
    assert Answers(label="z").over(ALL).key == ALL.key


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("labl = 'y'", "unknown answer labl; there are key, time, label"),
        ("key = 'y'", "key = 'y' is not of its type, tuple[str, ...]"),
        ("horizon_days = true", "horizon_days = True is not of its type, int"),
        ("[[feature]]\nsource = 'a'", "a [[feature]] is not as new writes it"),
        ("key =", "is not TOML"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, content, said):
    path = tmp_path / "answers.toml"
    path.write_text(content)
    with pytest.raises(UsageError) as refused:
        read(path)
    assert said in str(refused.value)
