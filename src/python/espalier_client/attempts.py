"""Whether a call that the server refused is made again, and when.

gRPC itself tries again what met nobody, by the service config. It does not read `RetryInfo`, by
which a server that has too much to do says when to come back.
"""

from __future__ import annotations

import time

from espalier_client.connection import Retry
from espalier_client.errors import Overloaded, PredictionError


class Attempts:
    """The attempts of one call within its deadline; `timeout` is the next one's, in seconds.

    It is None for the first, whose deadline is the service config's.
    """

    def __init__(self, timeout: float, retry: Retry) -> None:
        """Begin now."""
        self._end, self._left = time.monotonic() + timeout, retry.attempts
        self.timeout: float | None = None

    def pause(self, error: PredictionError) -> float | None:
        """Seconds to wait before the call is made again; None when `error` is the end of it."""
        self._left -= 1
        wait = error.retry_seconds if isinstance(error, Overloaded) else None
        if wait is None or not self._left:
            return None
        self.timeout = self._end - time.monotonic() - wait
        return wait if self.timeout > 0 else None
