from __future__ import annotations

import pytest

from espalier.commandline import OneLineParser
from espalier.errors import UsageError


def parser():
    made = OneLineParser("prog")
    made.add_argument("--number", type=int)
    made.add_subparsers().add_parser("sub").add_argument("--must", required=True)
    return made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--number", "x"], "argument --number: invalid int value: 'x'; see prog --help"),
        (["--nope"], "unrecognized arguments: --nope; see prog --help"),
        (["--no\nline"], "unrecognized arguments: --no line; see prog --help"),
        (["sub"], "the following arguments are required: --must; see prog sub --help"),
    ],
)
def test_an_error_is_raised_on_one_line_with_where_help_is(arguments, message):
    with pytest.raises(UsageError) as error:
        parser().parse_args(arguments)
    assert str(error.value) == message
    assert error.value.exit_code == 2
