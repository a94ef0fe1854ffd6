"""Gathers requests that wait into batches: one read and one model run for all of them.

A batch leaves when a worker slot is free, with whatever waits then; `gathering` says when it is
worth its while to wait a moment longer.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextvars import Context
from typing import Generic, Protocol, TypeVar

from espalier.errors import DeadlineTooShort, DependencyUnreachable, Overloaded
from espalier.serving.caller import CURRENT, Caller
from espalier.serving.gathering import Gathering

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")

# The weight of the newest batch in the running mean of how long a batch takes.
_NEWEST = 0.2
# So many batches, the last of them so recent, tell how long one takes at least: a store that was
# slow for a while must not have requests refused that would find it fast again.
_FEW, _RECENT, _BELIEVED_SECONDS = 4, 16, 1.0
_SHORTEST_RETRY = 0.05
# A request that must be answered so soon after a batch's run does not wait for company.
_HURRY_SECONDS = 0.02

Origins = Mapping[Key, Caller | None]


class BatchObserver(Protocol):
    """Is told what a batcher does, for metrics."""

    def batch(self, size: int, waited: Sequence[float]) -> None:
        """A batch of `size` distinct keys left; `waited` is each request's queue time, seconds."""

    def shed(self, reason: str) -> None:
        """A request was refused or dropped, for `reason`: overloaded, deadline or closed."""


class _Request(Generic[Key, Result]):
    __slots__ = ("answer", "caller", "deadline", "keys", "since", "size")

    def __init__(
        self,
        keys: Sequence[Key],
        size: int,
        deadline: float | None,
        since: float,
        answer: asyncio.Future[Mapping[Key, Result]],
    ) -> None:
        self.keys, self.size, self.deadline = keys, size, deadline
        self.since, self.answer, self.caller = since, answer, CURRENT.get()


class Batcher(Generic[Key, Result]):
    """Runs `run(distinct keys, origins)` over the keys of many callers at once.

    A request is never split over batches, so its answer comes from one call of `run`; one with
    more keys than `max_batch` is a batch of its own. All methods belong to one event loop.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Key], Origins[Key]], Awaitable[Mapping[Key, Result]]],
        *,
        max_batch: int = 256,
        max_waiting: int = 4096,
        workers: int = 2,
        observer: BatchObserver | None = None,
    ) -> None:
        """Make an idle batcher.

        Args:
            run: Answers every key that it is given, with the caller who asked for it first.
            max_batch: How large several requests together in one call of `run` may be.
            max_waiting: How much may wait before requests are refused.
            workers: How many calls of `run` may be under way at once.
            observer: Is told of batches and refusals.
        """
        self._run, self._observer = run, observer
        self._max_batch, self._max_waiting, self._workers = max_batch, max_waiting, workers
        self._queue: OrderedDict[_Request[Key, Result], None] = OrderedDict()
        self._waiting_keys = 0
        self._running: dict[asyncio.Task[None], list[_Request[Key, Result]]] = {}
        self._mean_seconds = 0.0
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._believed_until = 0.0
        self._pumping: asyncio.Handle | None = None
        self._patient, self._hurried_until = False, 0.0
        self._gathering = Gathering()
        self._closed = False
        self.refused_at = 0.0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        """How many keys wait in the queue."""
        return self._waiting_keys

    async def submit(
        self, keys: Sequence[Key], deadline: float | None = None, *, size: int | None = None
    ) -> list[Result]:
        """The results of `keys`, in their order; a key may stand there twice.

        Args:
            keys: What to run.
            deadline: When the answer is of no more use, on the event loop's clock.
            size: How large the request is; one a key by default.

        Raises:
            Overloaded: too much waits already.
            DeadlineTooShort: the deadline passed, or would pass before an answer.
            DependencyUnreachable: the batcher is closed.
            Exception: whatever `run` raised for the batch.
        """
        if not keys:
            return []
        loop = asyncio.get_running_loop()
        now = loop.time()
        size = len(keys) if size is None else size
        self._admit(size, deadline, now)
        request = _Request(keys, size, deadline, now, loop.create_future())
        self._queue[request] = None
        self._waiting_keys += size
        self._idle.clear()
        self._gathering.arrived()
        if deadline is not None and deadline - now < self._run_time(now) + _HURRY_SECONDS:
            self._hurried_until = deadline
        self._schedule_pump(loop)
        timer = None if deadline is None else loop.call_at(deadline, self._expire, request)
        try:
            found = await request.answer
        finally:
            if timer is not None:
                timer.cancel()
            self._gathering.left()
            self._forget(request)
        return [found[key] for key in keys]

    async def close(self, seconds: float) -> bool:
        """Refuse new requests and wait for those under way; true when all were answered.

        What is left after `seconds` is cancelled.
        """
        self._closed = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            for request in self._queue:
                request.answer.cancel()
            for task, requests in self._running.items():
                task.cancel()
                for request in requests:
                    request.answer.cancel()
            return False
        return True

    def _admit(self, size: int, deadline: float | None, now: float) -> None:
        if self._closed:
            self._shed("closed")
            self.refused_at = now
            raise DependencyUnreachable("the server is stopping", fix="ask another one")
        # An empty queue takes any request, so that a large one is not refused for ever.
        if self._waiting_keys and self._waiting_keys + size > self._max_waiting:
            self._shed("overloaded")
            raise Overloaded(
                f"{self._waiting_keys} keys wait for a prediction already",
                fix="try again after a pause, or add a server",
                retry_seconds=f"{max(self._expected_wait(), _SHORTEST_RETRY):.3f}",
            )
        if deadline is not None and deadline <= now + self._expected_wait() + self._run_time(now):
            raise self._too_late(now, deadline)

    def _run_time(self, now: float) -> float:
        """Seconds that the quickest of the recent batches took; 0 when there are few."""
        if now >= self._believed_until:
            self._recent.clear()
        return min(self._recent) if len(self._recent) >= _FEW else 0.0

    def _expected_wait(self) -> float:
        """Seconds until a new request's batch leaves; 0 with a free slot, whatever the past was."""
        if len(self._running) < self._workers:
            return 0.0
        batches_before = 1 + self._waiting_keys // self._max_batch
        return self._mean_seconds * batches_before / self._workers

    def _too_late(self, since: float, now: float) -> DeadlineTooShort:
        self._shed("deadline")
        return DeadlineTooShort(
            f"no answer within the {max(now - since, 0) * 1e3:.0f} ms that the caller allows",
            fix="allow more time, or try again when there is less load",
        )

    def _shed(self, reason: str) -> None:
        if self._observer is not None:
            self._observer.shed(reason)

    def _expire(self, request: _Request[Key, Result]) -> None:
        if not request.answer.done():
            now = asyncio.get_running_loop().time()
            request.answer.set_exception(self._too_late(request.since, now))

    def _forget(self, request: _Request[Key, Result]) -> None:
        """Drop a request whose caller has left, wherever it stands."""
        if request in self._queue:
            del self._queue[request]
            self._waiting_keys -= request.size
            self._note_idle()

    def _schedule_pump(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have `_pump` called when what waits is due, unless that is planned."""
        if not self._queue or len(self._running) >= self._workers:
            return
        wait = self._pause(loop.time())
        if self._pumping is not None:
            if wait > 0 or not self._patient:
                return
            self._pumping.cancel()
        self._patient = wait > 0
        # One turn of the loop later at least, so that requests read in this turn go together.
        self._pumping = (
            loop.call_later(wait, self._pump) if wait > 0 else loop.call_soon(self._pump)
        )

    def _pause(self, now: float) -> float:
        """Seconds to wait for company; none that a request's deadline does not allow."""
        if self._waiting_keys >= self._max_batch or self._hurried_until > now:
            return 0.0
        return self._gathering.pause(now - next(iter(self._queue)).since)

    def _pump(self) -> None:
        self._pumping = None
        self._gathering.departed()
        while self._queue and len(self._running) < self._workers:
            if requests := self._take():
                # In no caller's context: a batch is of several, and its successors of others.
                task = asyncio.get_running_loop().create_task(
                    self._answer(requests), context=Context()
                )
                self._running[task] = requests
        self._note_idle()

    def _take(self) -> list[_Request[Key, Result]]:
        """The oldest requests that fit into one batch, without those whose deadline passed."""
        now = asyncio.get_running_loop().time()
        taken: list[_Request[Key, Result]] = []
        size = 0
        while self._queue:
            request = next(iter(self._queue))
            if taken and size + request.size > self._max_batch:
                break
            del self._queue[request]
            self._waiting_keys -= request.size
            if request.answer.done():
                continue
            if request.deadline is not None and request.deadline <= now:
                request.answer.set_exception(self._too_late(request.since, now))
                continue
            taken.append(request)
            size += request.size
        return taken

    async def _answer(self, requests: Sequence[_Request[Key, Result]]) -> None:
        start = asyncio.get_running_loop().time()
        origins = _origins(requests)
        keys = list(origins)
        if self._observer is not None:
            self._observer.batch(len(keys), [start - request.since for request in requests])
        try:
            found = await self._run(keys, origins)
        except Exception as error:  # noqa: BLE001  # its callers get it, no other batch does
            for request in requests:
                if not request.answer.done():
                    request.answer.set_exception(error)
        else:
            for request in requests:
                if not request.answer.done():
                    request.answer.set_result(found)
        finally:
            # Here and not when the task is done, so that no caller finds its own batch in its way.
            if (task := asyncio.current_task()) is not None:
                self._running.pop(task, None)
            end = asyncio.get_running_loop().time()
            took = end - start
            self._recent.append(took)
            self._believed_until = end + _BELIEVED_SECONDS
            newest = _NEWEST if self._mean_seconds else 1.0
            self._mean_seconds += newest * (took - self._mean_seconds)
            self._schedule_pump(asyncio.get_running_loop())
            self._note_idle()

    def _note_idle(self) -> None:
        if not self._queue and not self._running:
            self._idle.set()


def _origins(requests: Sequence[_Request[Key, Result]]) -> dict[Key, Caller | None]:
    """The distinct keys of a batch, each with the caller who asked for it first."""
    origins: dict[Key, Caller | None] = {}
    for request in requests:
        for key in request.keys:
            origins.setdefault(key, request.caller)
    return origins
