"""Command lines whose errors are one line, and that end in order when they are told to."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from espalier.errors import UsageError


class OneLineParser(argparse.ArgumentParser):
    """A parser that raises UsageError where argparse would print several lines and exit."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is."""
        # Whoever prints the error names the program.
        raise UsageError(message, fix=f"see {self.prog} --help")


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the program as Ctrl-C does: in order."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
