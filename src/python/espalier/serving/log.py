"""The prediction log: what was served goes to PostgreSQL, without slowing what is served.

Monitoring joins it with labels that come later. Each distinct entity of a batch is one row, even
when several callers asked for it at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from espalier.serving.batching import Origins
from espalier.serving.loading import LoadedModel
from espalier.serving.log_writer import LogWriter, Served
from espalier.serving.reader import FeatureRows

_log = logging.getLogger(__name__)


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
    counted.
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
        self._problem = ""
        self._closing = asyncio.Event()

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
        if self._queued_rows + count > self._max_rows or self._closing.is_set():
            self._dropped(count)
            return
        self._queue.append(Served(model, rows, scores, at, origins, shadow))
        self._queued_rows += count

    async def run(self) -> None:
        """Write what was recorded until `close` is called, and then what is left, once."""
        while not self._closing.is_set():
            try:
                async with asyncio.timeout(self._every):
                    await self._closing.wait()
            except TimeoutError:
                await self._flush()
        await self._flush()
        self._dropped(self._queued_rows)
        await asyncio.to_thread(self._writer.close)

    def close(self) -> None:
        """Have `run` write what is left and end."""
        self._closing.set()

    async def _flush(self) -> None:
        batches = list(self._queue)
        if not batches:
            return
        try:
            # In a thread: making the rows takes longer than a prediction may wait.
            written, left_out = await asyncio.to_thread(self._writer.write, batches, self._clock())
        except Exception as error:  # noqa: BLE001  # whatever it is, predictions go on
            await asyncio.to_thread(self._writer.close)
            problem = str(error).partition("\n")[0] or type(error).__name__
            if problem != self._problem:
                _log.warning("predictions wait to be logged", extra={"problem": problem})
            self._problem = problem
            return
        self._problem = ""
        for batch in batches:
            self._queue.popleft()
            self._queued_rows -= len(batch.rows.keys)
        if self._observer is not None:
            self._observer.predictions_not_sampled(left_out)
            self._observer.predictions_logged(written)

    def _dropped(self, rows: int) -> None:
        if rows and self._observer is not None:
            self._observer.predictions_not_logged(rows)
