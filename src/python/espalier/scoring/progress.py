"""How far a run is, told on a stream now and then."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """Counts parts and rows, and tells them in a line at most once in `every` seconds."""

    def __init__(self, *, every: float = 1.0, stream: TextIO | None = None) -> None:
        """Nothing is told yet; `stream` is standard error unless given."""
        self._every, self._stream = every, stream or sys.stderr
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
        if now - self._told >= self._every or self._parts == self._wanted:
            self._told = now
            rate = self._rows / max(now - self._began, 1e-9)
            self._say(
                f"{self._parts} of {self._wanted} parts, {self._rows:,} rows, {rate:,.0f} rows/s"
            )

    def _say(self, text: str) -> None:
        print(f"score: {text}", file=self._stream, flush=True)
