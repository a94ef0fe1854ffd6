"""The prediction log: what was served goes to PostgreSQL, without slowing what is served.

Monitoring joins it with labels that come later. Each distinct entity of a batch is one row, even
when several callers asked for it at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import psycopg
from numpy.typing import NDArray

from espalier.serving.batching import Origins
from espalier.serving.loading import LoadedModel
from espalier.serving.log_rows import Served
from espalier.serving.log_writer import LogWriter, Written
from espalier.serving.reader import FeatureRows

_log = logging.getLogger(__name__)

# The most rows of one transaction, but for a batch that has more.
_CHUNK_ROWS = 5_000
# A write that takes longer has its connection cut, since a server that hangs says nothing. The last
# one must leave time to the server's own end.
_LONGEST_SECONDS, _LAST_SECONDS = 10.0, 3.0


class LogObserver(Protocol):
    """Is told what a log does, for metrics."""

    def predictions_logged(self, rows: int) -> None:
        """So many rows are in the database."""

    def predictions_not_logged(self, rows: int) -> None:
        """So many rows were dropped, because the queue was full or the server stopped."""

    def predictions_not_sampled(self, rows: int) -> None:
        """So many rows were left out, as the sampling rate says."""


class PredictionLog:
    """A bounded queue of served batches, and one task that copies them to `espalier.predictions`.

    When the database is away, slow or full, the queue fills and then batches are dropped and
    counted. Of the rows that were recorded with a valid score, each is told to the observer once in
    the end: as logged, not logged or not sampled.
    """

    def __init__(
        self,
        dsn: str,
        *,
        max_rows: int = 50_000,
        every_seconds: float = 1.0,
        sample: float = 1.0,
        retention_days: int = 0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        observer: LogObserver | None = None,
    ) -> None:
        """Describe the log; nothing is opened.

        Args:
            dsn: PostgreSQL's connection URI.
            max_rows: How many rows may wait, counting those that are being written.
            every_seconds: How often what waits is written, and a failed write tried again.
            sample: The share of rows that is written, 0 to 1.
            retention_days: Months that ended so many days ago are dropped; 0 keeps them.
            clock: Says what time it is, for that.
            observer: Is told of rows written and left out.
        """
        self._writer = LogWriter(dsn, sample=sample, retention_days=retention_days)
        self._every, self._clock, self._observer = every_seconds, clock, observer
        self._max_rows, self._queued_rows = max_rows, 0
        self._queue: deque[Served] = deque()
        # Taken from the queue and not known to be written; tried again as they are.
        self._chunk: list[Served] = []
        self._problem, self._dropping = "", False
        self._closing, self._last = asyncio.Event(), 0.0

    def record(
        self,
        model: LoadedModel,
        rows: FeatureRows,
        scores: NDArray[np.float64],
        at: datetime,
        origins: Origins[str],
        *,
        shadow: bool = False,
    ) -> None:
        """Queue the scored rows of a batch; never waits and never fails."""
        count = len(rows.keys)
        batch = Served(model, rows, scores, at, origins, shadow)
        if self._queued_rows + count > self._max_rows or self._closing.is_set():
            self._drop(batch)
            return
        self._queue.append(batch)
        self._queued_rows += count

    async def run(self) -> None:
        """Write what was recorded until `close` is called, and then what is left, once.

        It ends within five seconds of `close`, whatever the database does.
        """
        try:
            while not self._closing.is_set():
                try:
                    async with asyncio.timeout(self._every):
                        await self._closing.wait()
                except TimeoutError:
                    await self._flush()
            await self._flush()
        finally:
            for batch in (*self._chunk, *self._queue):
                self._drop(batch)
            self._writer.close()

    def close(self) -> None:
        """Have `run` write what is left and end."""
        self._last = asyncio.get_running_loop().time() + _LAST_SECONDS
        self._closing.set()

    async def _flush(self) -> None:
        """Write all that waits now; stop at the first failure, or when the time for it is over."""
        loop = asyncio.get_running_loop()
        while (self._chunk or self._queue) and not (0 < self._last < loop.time()):
            if not self._chunk:
                self._chunk = self._taken()
            try:
                result = await self._write(self._chunk)
            except psycopg.DataError as error:
                # It would be refused for ever, and hold up what comes behind it.
                _log.error("predictions cannot be logged", exc_info=error)
                for batch in self._chunk:
                    self._drop(batch)
            except Exception as error:  # noqa: BLE001  # whatever it is, predictions go on
                await asyncio.to_thread(self._writer.close)
                self._note(str(error).partition("\n")[0] or type(error).__name__)
                return
            else:
                self._note("")
                if self._observer is not None:
                    self._observer.predictions_not_sampled(result.left_out)
                    self._observer.predictions_logged(result.written)
            self._queued_rows -= sum(len(batch.rows.keys) for batch in self._chunk)
            self._chunk = []

    def _taken(self) -> list[Served]:
        chunk = [self._queue.popleft()]
        rows = len(chunk[0].rows.keys)
        while self._queue and rows + len(self._queue[0].rows.keys) <= _CHUNK_ROWS:
            chunk.append(self._queue.popleft())
            rows += len(chunk[-1].rows.keys)
        return chunk

    async def _write(self, chunk: Sequence[Served]) -> Written:
        """Write in a thread, since it blocks; cut it off when it takes too long.

        Raises:
            DependencyUnreachable, psycopg.Error: see `LogWriter.write`.
        """
        writing = asyncio.ensure_future(asyncio.to_thread(self._writer.write, chunk, self._clock()))
        ending = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait(
                {writing, ending}, timeout=_LONGEST_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if self._closing.is_set():
                left = self._last - asyncio.get_running_loop().time()
                await asyncio.wait({writing}, timeout=max(0.0, left))
        finally:
            ending.cancel()
            if not writing.done():
                self._writer.abort()
                await asyncio.wait({writing})
                # Taken note of, also when we were cancelled and nobody is told.
                writing.exception()
        return await writing

    def _note(self, problem: str) -> None:
        """Say once that writing fails, and once that it works again."""
        if problem and problem != self._problem:
            _log.warning("predictions wait to be logged", extra={"problem": problem})
        if self._problem and not problem:
            _log.info("predictions are logged again")
            self._dropping = False
        self._problem = problem

    def _drop(self, batch: Served) -> None:
        if not self._dropping:
            self._dropping = True
            _log.warning("predictions are dropped from the log")
        if self._observer is not None:
            self._observer.predictions_not_logged(batch.scored)
