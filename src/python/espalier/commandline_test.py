from __future__ import annotations

import signal

import pytest

from espalier.commandline import OneLineParser, run, terminated_as_interrupted
from espalier.errors import BadData, UsageError


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_a_program_is_interrupted(number):
    # The tests themselves may run under nohup.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), terminated_as_interrupted():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminated_as_interrupted():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_program_gives_its_code_or_that_of_its_error(capsys: pytest.CaptureFixture[str]):
    def bad() -> int:
        raise BadData("users.csv: is empty", fix="write it")

    def interrupted() -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    assert run("prog", lambda: 7) == 7
    assert capsys.readouterr().err == ""
    assert run("prog", bad) == 4
    assert capsys.readouterr().err == "prog: users.csv: is empty; write it\n"
    assert run("prog", interrupted) == 130
    assert capsys.readouterr().err == "prog: interrupted\n"
    assert run("prog", interrupted, interrupted="ended") == 130
    assert capsys.readouterr().err == "prog: ended\n"


def test_a_bug_keeps_its_trace():
    with pytest.raises(ZeroDivisionError):
        run("prog", lambda: 1 // 0)
