from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from espalier.errors import UsageError
from espalier.orchestration.options import parse, parser_of


def grow(
    project: str,
    as_of: date,
    source: Path | None = None,
    parts: int = 4,
    label_date: date | None = None,
    *,
    dry: bool = False,
) -> None:
    """Grow a plant.

    It takes a while.

    Args:
        project: The garden.
        as_of: The day on which
            it is 100 % planted: at noon.
        source: The bag
            with seeds.
        parts: How many pots.
        dry: Without water.

    Raises:
        Nothing: ever.
    """


def without_docstring(as_of: date, count: int = 1) -> None:
    pass


def read(*arguments, **fixed):
    return parse(parser_of(grow, "grow.pex", **fixed), arguments)


def test_every_kind_of_parameter_has_its_type():
    arguments = "--project p --as-of 1998-06-30 --source a/b --parts 2 --label-date 1998-01-01"
    assert read(*arguments.split(), "--dry") == {
        "project": "p",
        "as_of": date(1998, 6, 30),
        "source": Path("a/b"),
        "parts": 2,
        "label_date": date(1998, 1, 1),
        "dry": True,
    }


def test_defaults_are_those_of_the_function():
    assert read("--project=p", "--as-of=1998-06-30") == {
        "project": "p",
        "as_of": date(1998, 6, 30),
        "source": None,
        "parts": 4,
        "label_date": None,
        "dry": False,
    }


def test_what_the_program_has_decided_is_given_and_not_shown():
    assert read("--as-of=1998-06-30", project="churn")["project"] == "churn"
    assert read("--as-of=1998-06-30", "--project=other", project="churn")["project"] == "other"
    assert "project" not in parser_of(grow, "grow.pex", project="churn").format_help()
    assert "--project PROJECT" in parser_of(grow, "grow.pex").format_help()


def test_help_is_the_docstring():
    shown = " ".join(parser_of(grow, "grow.pex").format_help().split())
    assert shown.startswith("usage: grow.pex [-h] --project PROJECT --as-of YYYY-MM-DD [--source")
    assert "Grow a plant." in shown
    assert "--as-of YYYY-MM-DD The day on which it is 100 % planted: at noon. --source" in shown
    assert "--source SOURCE The bag with seeds. --parts N How many pots." in shown
    assert "--dry Without water." in shown
    assert "Nothing" not in shown


def test_a_function_without_docstring_has_options_too():
    parser = parser_of(without_docstring, "program")
    assert "--count N" in parser.format_help()
    assert parse(parser, ["--as-of", "1998-06-30"]) == {"as_of": date(1998, 6, 30), "count": 1}


@pytest.mark.parametrize("program", ["churn-ingest.pex"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --project, --as-of"),
        (["--project=p", "--as-of"], "argument --as-of: expected one argument"),
        (["--as-of=30.6.98"], "argument --as-of: '30.6.98' is not a day, as 1998-06-30"),
        (["--as-of=19980630"], "argument --as-of: '19980630' is not a day, as 1998-06-30"),
        (["--as-of=1998-02-30"], "argument --as-of: '1998-02-30' is not a day, as 1998-06-30"),
        (["--as-of="], "argument --as-of: '' is not a day, as 1998-06-30"),
        (["--parts=few"], "argument --parts: invalid int value: 'few'"),
        (["--dry=yes"], "argument --dry: ignored explicit argument 'yes'"),
        (
            ["--project=p", "--as-of=1998-06-30", "--part=2"],
            "unrecognized arguments: --part=2",
        ),
        (["--project=p", "--as-of=1998-06-30", "a"], "unrecognized arguments: a"),
    ],
)
def test_every_error_is_one_line_of_wrong_use(program, arguments, message):
    with pytest.raises(UsageError) as error:
        parse(parser_of(grow, program), arguments)
    assert str(error.value) == f"{message}; see churn-ingest.pex --help"
    assert error.value.exit_code == 2
