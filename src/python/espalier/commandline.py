"""Command lines whose errors are one line, and that end in order when they are told to."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from types import FrameType
from typing import NoReturn

from espalier.errors import EspalierError, UsageError


class OneLineParser(argparse.ArgumentParser):
    """A parser that raises UsageError where argparse would print several lines and exit."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is."""
        # Whoever prints the error names the program.
        raise UsageError(message, fix=f"see {self.prog} --help")


def day(text: str) -> date:
    """A day, as the type of an option.

    Raises:
        argparse.ArgumentTypeError: it is not a day, as 1998-06-30.
    """
    # fromisoformat would also take 19970630 and 1997-W27-1.
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        with suppress(ValueError):
            return date.fromisoformat(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a day, as 1998-06-30")


def midnight(text: str) -> datetime:
    """The beginning of a day in UTC, as the type of an option.

    Raises:
        argparse.ArgumentTypeError: it is not a day, as 1998-06-30.
    """
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day, as 1998-06-30") from error


def run(program: str, body: Callable[[], int], *, interrupted: str = "interrupted") -> int:
    """Run a program's body; give the exit code. What goes wrong is one line on standard error.

    Args:
        program: The program's name, which begins the line.
        body: What it does; its result is the exit code.
        interrupted: What is said when it is told to end, with exit code 130.
    """
    # Prefect would tell its makers of runs at a terminal, and say so above our own output.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    try:
        with terminated_as_interrupted():
            code = body()
        sys.stdout.flush()
    except EspalierError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{program}: {interrupted}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the program as Ctrl-C does: in order.

    A signal that is ignored, as by nohup, stays so.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
