"""Waits for a month's files.

Files are written one after the other, and a reader must not take the half of a batch for all of
it. Who delivers writes the files first and an empty file `_SUCCESS` last, as Spark does; nothing is
changed afterwards.
"""

from __future__ import annotations

import time
from pathlib import Path

from espalier.errors import BatchLate

MARKER = "_SUCCESS"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 15.0


def wait_for(folder: Path, *, seconds: float) -> None:
    """Return as soon as the folder is complete.

    Raises:
        BatchLate: it is not within that time.
    """
    deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE
    while not (folder / MARKER).is_file():
        left = deadline - time.monotonic()
        if left <= 0:
            there = "is not complete" if folder.is_dir() else "is not there"
            raise BatchLate(
                f"{folder}: {there} after {seconds:.0f} s",
                fix=f"deliver the files and, last, an empty file {MARKER}; then run it again",
            )
        time.sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST_PAUSE)
