from __future__ import annotations

import io
import re

import pytest

from espalier.cli.console import Console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_step_is_one_plain_line_with_its_time():
    out = io.StringIO()
    console = Console(out)
    with console.step("ingest") as step:
        assert out.getvalue() == ""
        step.note("13 new snapshots")
        step.note("50 rows")
    console.say("done")
    assert re.fullmatch(
        r" {3}0\.\d s  ingest        13 new snapshots, 50 rows\ndone\n", out.getvalue()
    )
    assert 0 <= console.seconds < 60


def test_notes_that_do_not_fit_into_80_columns_go_on_below():
    out = io.StringIO()
    with Console(out).step("start") as step:
        for name in ("MLflow", "Prefect"):
            step.note(f"{name} on http://127.0.0.1:54321")
        step.note("x" * 90)
    first, second, third = out.getvalue().splitlines()
    assert first.endswith("s  start         MLflow on http://127.0.0.1:54321,")
    assert second == " " * 24 + "Prefect on http://127.0.0.1:54321,"
    assert third == " " * 24 + "x" * 90


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_a_step_that_fails_says_so_and_the_error_goes_on(kind):
    out = kind()
    with pytest.raises(KeyboardInterrupt), Console(out).step("train"):
        raise KeyboardInterrupt
    assert out.getvalue().endswith("  failed  train\n")


def test_on_a_terminal_the_step_under_way_is_shown_and_replaced():
    out = Terminal()
    with Console(out).step("train"):
        assert out.getvalue() == "\x1b[K   ...    train\r"
    assert re.fullmatch(r"\x1b\[K   \.\.\.    train\r\x1b\[K   0\.\d s  train\n", out.getvalue())


def test_the_standard_output_is_that_of_the_moment(capsys: pytest.CaptureFixture[str]):
    Console().say("here")
    assert capsys.readouterr().out == "here\n"
