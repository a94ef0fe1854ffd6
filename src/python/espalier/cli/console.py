"""Progress for a person: one line a step, with its time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

COLUMNS = 80
# Where what came of a step begins: after its time and its title.
_NOTES_AT = 24


class Step:
    """One step under way; `note` adds what came of it."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Say something of the result, at the end of the step's line."""
        self.notes.append(text)


class Console:
    """Prints steps as they end, and while they run when someone watches a terminal."""

    def __init__(self, out: TextIO | None = None) -> None:
        """Print to `out`; default: the standard output."""
        self._out, self._began = out or sys.stdout, time.monotonic()
        self._watched = self._out.isatty()

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Time one step. When it fails its line says so and the error goes on."""
        step, began = Step(), time.monotonic()
        if self._watched:
            self._write(f"   ...    {title}\r")
        try:
            yield step
        except BaseException:
            self._write(f"  failed  {title}\n")
            raise
        line = f"{time.monotonic() - began:6.1f} s  {title:<13} {_wrapped(step.notes)}"
        self._write(line.rstrip() + "\n")

    def say(self, text: str = "") -> None:
        """Print lines."""
        self._write(text + "\n")

    @property
    def seconds(self) -> float:
        """Time since this console was made."""
        return time.monotonic() - self._began

    def _write(self, text: str) -> None:
        # Clears what was under way on a terminal's line.
        self._out.write(("\x1b[K" if self._watched else "") + text)
        self._out.flush()


def _wrapped(notes: Sequence[str]) -> str:
    """The notes with commas, as many on a line as fit."""
    lines = [""]
    for place, note in enumerate(notes):
        text = note + ("," if place < len(notes) - 1 else "")
        if lines[-1] and _NOTES_AT + len(lines[-1]) + 1 + len(text) > COLUMNS:
            lines.append(text)
        else:
            lines[-1] = f"{lines[-1]} {text}".strip()
    return ("\n" + " " * _NOTES_AT).join(lines)
