"""How long a batch waits for company.

Under load a transport hands requests on one by one, and a batch of each would cost several times
what the requests themselves do. So while several are under way, a batch waits until as many are
there as were lately, and a few milliseconds at most. A lone caller waits for nobody. Measured by
benchmarks/serving/compare_benchmark.py.
"""

from __future__ import annotations

# More requests than this under way, on a running mean over arrivals, are company worth a wait.
_COMPANY, _NEWEST = 3.0, 0.2
# How much of a crowd is remembered at each departure, and how often a batch waits although as many
# as lately are there: there may be more by now.
_REMEMBERED, _LOOK_AGAIN = 0.98, 16


class Gathering:
    """Counts requests from their arrival to their answer, and says when a batch should leave."""

    def __init__(self, longest: float = 0.004) -> None:
        """Make one that lets a batch wait for `longest` seconds at most."""
        self._longest = longest
        self._under_way, self._mean, self._crowd, self._departures = 0, 0.0, 0.0, 0

    def arrived(self) -> None:
        """A request came."""
        self._under_way += 1
        self._mean += _NEWEST * (self._under_way - self._mean)

    def left(self) -> None:
        """A request was answered, or its caller has left."""
        self._under_way -= 1

    def departed(self) -> None:
        """A batch leaves."""
        self._departures += 1
        self._crowd = max(self._under_way, self._crowd * _REMEMBERED)

    def pause(self, waited: float) -> float:
        """Seconds that a batch should go on waiting, whose first request has `waited` so far."""
        if self._mean <= _COMPANY:
            return 0.0
        if self._under_way >= self._crowd and self._departures % _LOOK_AGAIN:
            return 0.0
        return max(0.0, self._longest - waited)
