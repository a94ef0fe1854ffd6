"""Work that a SIGTERM ends as cleanly as a Ctrl-C does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGTERM raise KeyboardInterrupt in here, then pass the signal on.

    Prefect raises an exception of its own, in the middle of whatever runs. psycopg cancels the
    query under way at a KeyboardInterrupt alone; at any other exception it leaves a connection with
    which nothing can be put in order. What was in force before gets the signal afterwards, so
    Prefect still tells a cancelled run from one that crashed.
    """
    if threading.current_thread() is not threading.main_thread():
        # Signals reach the main thread alone.
        yield
        return
    terminated = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if terminated:
            signal.raise_signal(signal.SIGTERM)
