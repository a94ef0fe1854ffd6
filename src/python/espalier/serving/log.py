"""The prediction log: what was served goes to PostgreSQL, without slowing what is served.

Monitoring joins it with labels that come later. Each distinct entity of a batch is one row, even
when several callers asked for it at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from espalier.postgres.connect import Connection, connect
from espalier.serving.loading import LoadedModel
from espalier.serving.reader import FeatureRows
from espalier.serving.scorer import valid

_log = logging.getLogger(__name__)

_COPY = (
    "COPY espalier.predictions (served_at, project, model_version, entity_id, score, prediction, "
    "feature_time, features) FROM STDIN"
)


class LogObserver(Protocol):
    """Is told what a log does, for metrics."""

    def predictions_logged(self, rows: int) -> None:
        """So many rows are in the database."""

    def predictions_not_logged(self, rows: int) -> None:
        """So many rows were dropped, because the queue was full or the server stopped."""


@dataclass(frozen=True)
class _Served:
    """One batch as it was served; its rows are made when they are written."""

    model: LoadedModel
    rows: FeatureRows
    scores: NDArray[np.float64]
    at: datetime


class PredictionLog:
    """A bounded queue of served batches, and one task that copies them to `espalier.predictions`.

    When the database is away or slow, the queue fills and then batches are dropped and counted.
    """

    def __init__(
        self,
        dsn: str,
        *,
        max_rows: int = 50_000,
        every_seconds: float = 1.0,
        observer: LogObserver | None = None,
    ) -> None:
        """Describe the log; nothing is opened.

        Args:
            dsn: PostgreSQL's connection URI.
            max_rows: How many rows may wait, counting those that are being written.
            every_seconds: How often what waits is written, and a failed write tried again.
            observer: Is told of rows written and dropped.
        """
        self._dsn, self._every, self._observer = dsn, every_seconds, observer
        self._max_rows, self._queued_rows = max_rows, 0
        self._queue: deque[_Served] = deque()
        self._connection: Connection | None = None
        self._problem = ""
        self._closing = asyncio.Event()

    def record(
        self, model: LoadedModel, rows: FeatureRows, scores: NDArray[np.float64], at: datetime
    ) -> None:
        """Queue the scored rows of a batch; never waits and never fails."""
        count = len(rows.keys)
        if self._queued_rows + count > self._max_rows or self._closing.is_set():
            self._dropped(count)
            return
        self._queue.append(_Served(model, rows, scores, at))
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
        await self._disconnect()

    def close(self) -> None:
        """Have `run` write what is left and end."""
        self._closing.set()

    async def _flush(self) -> None:
        batches = list(self._queue)
        if not batches:
            return
        try:
            # In a thread: making the rows takes longer than a prediction may wait.
            written = await asyncio.to_thread(self._write, batches)
        except Exception as error:  # noqa: BLE001  # whatever it is, predictions go on
            await self._disconnect()
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
            self._observer.predictions_logged(written)

    def _write(self, batches: list[_Served]) -> int:
        """Copy all rows in one transaction; give their number."""
        if self._connection is None:
            self._connection = connect(self._dsn, autocommit=True)
        written = 0
        with (
            self._connection.transaction(),
            self._connection.cursor() as cursor,
            cursor.copy(_COPY) as copy,
        ):
            for batch in batches:
                threshold = batch.model.manifest.threshold
                project, version = batch.model.manifest.project, batch.model.identity.version
                # A null feature is NaN in the matrix, and null again in the log.
                features = batch.rows.matrix.astype(object)
                features[np.isnan(batch.rows.matrix)] = None
                for key, when, score, ok, values in zip(
                    batch.rows.keys,
                    batch.rows.times,
                    batch.scores.tolist(),
                    valid(batch.scores).tolist(),
                    features.tolist(),
                    strict=True,
                ):
                    if ok:
                        decision = 1.0 if score >= threshold else 0.0
                        row = (batch.at, project, version, key, score, decision, when, values)
                        copy.write_row(row)
                        written += 1
        return written

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.to_thread(connection.close)

    def _dropped(self, rows: int) -> None:
        if rows and self._observer is not None:
            self._observer.predictions_not_logged(rows)
