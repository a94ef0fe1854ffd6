"""Work that a SIGTERM ends as cleanly as a Ctrl-C does."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any


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

    before = _replace(signal.getsignal(signal.SIGTERM), interrupt)
    try:
        yield
    finally:
        _replace(interrupt, before)
        if terminated:
            signal.raise_signal(signal.SIGTERM)


def _replace(old: Any, new: Any) -> Any:
    """Put a handler of SIGTERM in force in the place of another; give that one back.

    A worker tells a run that it is cancelled before it sends the signal, and Prefect takes the
    message only while the handler in force is the one that it knows as its own: else a cancelled
    run would for some seconds be taken for one that crashed.
    """
    engine: Any = sys.modules.get("prefect.utilities.engine")
    known = engine is not None and engine._prefect_sigterm_handler is old  # noqa: SLF001  # see above
    with engine._prefect_sigterm_bridge_lock if known else nullcontext():  # noqa: SLF001
        signal.signal(signal.SIGTERM, new)
        if known:
            engine._prefect_sigterm_handler = new  # noqa: SLF001
    return old
