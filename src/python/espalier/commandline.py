"""Command lines whose errors are one line."""

from __future__ import annotations

import argparse
from typing import NoReturn

from espalier.errors import UsageError


class OneLineParser(argparse.ArgumentParser):
    """A parser that raises UsageError where argparse would print several lines and exit."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is."""
        # Whoever prints the error names the program.
        raise UsageError(message, fix=f"see {self.prog} --help")
