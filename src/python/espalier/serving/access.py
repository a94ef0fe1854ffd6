"""Who may call and how much: bearer tokens, and a rate for each of them."""

from __future__ import annotations

import time
from collections.abc import Callable

from espalier.errors import RateLimited
from espalier.serving.caller import Caller, identify
from espalier.serving.tokens import TokenFile


class Bucket:
    """A token bucket that may go into debt: a large request passes, and the next ones wait for it.

    So one request larger than the bucket is not refused for ever.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        """Start full: `burst` units, and `rate` more each second."""
        self._rate, self._burst, self._clock = rate, burst, clock
        self._level, self._at = burst, clock()

    def wait(self) -> float:
        """Seconds until the next unit may be taken; 0 when it may be now."""
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        return 0.0 if self._level >= 1 else (1 - self._level) / self._rate

    def take(self, units: float) -> None:
        """Take `units`, into debt if need be."""
        self._level -= units


class Access:
    """Admits callers. Without tokens everybody may call, as one; without a rate, at any rate."""

    def __init__(
        self,
        *,
        tokens: TokenFile | None = None,
        rate: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        begin: Callable[[Caller], Caller] | None = None,
    ) -> None:
        """Describe who is admitted.

        Args:
            tokens: The tokens that are accepted; None when calls need none.
            rate: Entities a second for each token's name, with one second's worth at once; 0 for
                no limit.
            clock: Seconds, for the rate.
            begin: Told of each caller that is admitted; its answer is taken in the caller's place.
        """
        self._begin = begin
        self._tokens, self._rate, self._clock = tokens, rate, clock
        self._buckets: dict[str, Bucket] = {}

    @property
    def guarded(self) -> bool:
        """Whether calls need a token."""
        return self._tokens is not None

    @property
    def rated(self) -> bool:
        """Whether there is a rate to `spend` from."""
        return self._rate > 0

    def admit(
        self, authorization: str | None, request_id: str | None, traceparent: str | None
    ) -> Caller:
        """Whose request with these headers is.

        Raises:
            Unauthenticated: tokens are asked for, and this one is missing or not valid.
        """
        name = "" if self._tokens is None else self._tokens.name_of(authorization)
        caller = identify(request_id, traceparent, token=name)
        return caller if self._begin is None else self._begin(caller)

    def spend(self, caller: Caller, entities: int) -> None:
        """Count `entities` against the caller's rate.

        Raises:
            RateLimited: it has used up its rate; nothing was counted.
        """
        if not self._rate:
            return
        bucket = self._bucket(caller)
        if seconds := bucket.wait():
            raise RateLimited(
                f"more than {self._rate:g} entities a second",
                fix=f"try again in {seconds:.3f} s",
                retry_seconds=f"{seconds:.3f}",
            )
        bucket.take(entities)

    def pause(self, caller: Caller) -> float:
        """Count one entity of a stream; give the seconds to wait before it is taken on."""
        if not self._rate:
            return 0.0
        bucket = self._bucket(caller)
        seconds = bucket.wait()
        bucket.take(1)
        return seconds

    def _bucket(self, caller: Caller) -> Bucket:
        # There are as many names as the tokens file has, so this does not grow with callers.
        bucket = self._buckets.get(caller.token)
        if bucket is None:
            bucket = Bucket(self._rate, max(self._rate, 1.0), self._clock)
            self._buckets[caller.token] = bucket
        return bucket
