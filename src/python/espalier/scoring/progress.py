"""How far a run is, told on a stream now and then."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_EVERY_IN_A_TERMINAL, _EVERY_IN_A_LOG = 0.1, 10.0


class Progress:
    """Counts parts and rows, and tells them: in a terminal one line, written anew; else lines."""

    def __init__(self, *, every: float | None = None, stream: TextIO | None = None) -> None:
        """Nothing is told yet.

        Args:
            every: The least seconds from one time to the next; not given, often in a terminal and
                seldom in a log. The last part is told always.
            stream: Standard error unless given.
        """
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        usual = _EVERY_IN_A_TERMINAL if self._terminal else _EVERY_IN_A_LOG
        self._every = usual if every is None else every
        self._began = self._told = time.monotonic()
        self._parts = self._wanted = self._kept = self._rows = 0

    def begin(self, *, parts: int, kept: int) -> None:
        """A run of so many parts of which some are there already."""
        self._parts, self._wanted, self._kept = kept, parts, kept
        self._began = self._told = time.monotonic()
        if kept:
            self._say(f"{kept} of {parts} parts are there already")

    def part(self, rows: int) -> None:
        """One more part is written."""
        self._parts += 1
        self._rows += rows
        now = time.monotonic()
        last = self._parts == self._wanted
        if last or now - self._told >= self._every:
            self._told = now
            rate = self._rows / max(now - self._began, 1e-9)
            self._say(
                f"{self._parts} of {self._wanted} parts, {self._rows:,} rows, {rate:,.0f} rows/s",
                stays=last or not self._terminal,
            )

    def _say(self, text: str, *, stays: bool = True) -> None:
        # Over what stands in the line, whose rest is cleared.
        before, after = ("\r", "\x1b[K") if self._terminal else ("", "")
        print(
            f"{before}score: {text}{after}",
            end="\n" if stays else "",
            file=self._stream,
            flush=True,
        )
