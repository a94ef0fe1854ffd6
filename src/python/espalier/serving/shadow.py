"""A challenger scores what the champion served, off the critical path, into the prediction log.

Monitoring compares both on the same rows. What it cannot keep up with is dropped and counted: a
slow challenger costs no caller anything but processor time, and a bounded amount of memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np

from espalier.serving.batching import Origins
from espalier.serving.core import PredictionSink
from espalier.serving.loading import LoadedModel
from espalier.serving.reader import FeatureReader, FeatureRows

_log = logging.getLogger(__name__)

# What comes within it is scored together.
_PAUSE_SECONDS = 0.05


class ShadowObserver(Protocol):
    """Is told what a shadow does, for metrics."""

    def shadowed(self, rows: int, outcome: str) -> None:
        """So many rows were scored, dropped, or failed."""


@dataclass(frozen=True)
class _Offered:
    champion: LoadedModel
    rows: FeatureRows
    at: datetime
    origins: Origins[str]


class ShadowScorer:
    """Scores offered rows with `model`, the challenger, while there is one."""

    def __init__(
        self,
        reader: FeatureReader,
        sink: PredictionSink,
        *,
        max_rows: int = 10_000,
        observer: ShadowObserver | None = None,
    ) -> None:
        """Make an idle one.

        Args:
            reader: Where features come from that the champion does not take.
            sink: Keeps the scores.
            max_rows: How many rows may wait.
            observer: Is told of rows scored, dropped and failed.
        """
        self.model: LoadedModel | None = None
        self._reader, self._sink, self._observer = reader, sink, observer
        self._queue: deque[_Offered] = deque()
        self._queued_rows, self._max_rows = 0, max_rows
        self._offered = asyncio.Event()

    def offer(
        self, champion: LoadedModel, rows: FeatureRows, at: datetime, origins: Origins[str]
    ) -> None:
        """Take the rows that `champion` scored; never waits and never fails."""
        if self.model is None or self.model.identity == champion.identity:
            return
        if self._queued_rows + len(rows.keys) > self._max_rows:
            self._tell(len(rows.keys), "dropped")
            return
        self._queue.append(_Offered(champion, rows, at, origins))
        self._queued_rows += len(rows.keys)
        self._offered.set()

    async def run(self) -> None:
        """Score what is offered, until cancelled."""
        while True:
            await self._offered.wait()
            await asyncio.sleep(_PAUSE_SECONDS)
            self._offered.clear()
            batches = list(self._queue)
            self._queue.clear()
            for batch in batches:
                await self._score(batch)
                self._queued_rows -= len(batch.rows.keys)

    async def _score(self, batch: _Offered) -> None:
        model, count = self.model, len(batch.rows.keys)
        if model is None:
            self._tell(count, "dropped")
            return
        rows = batch.rows
        try:
            if model.source != batch.champion.source:
                rows = await self._reader.read(model.source, rows.keys)
            scores = (
                await asyncio.to_thread(model.scorer.run, rows.matrix) if rows.keys else np.empty(0)
            )
        except Exception:  # noqa: BLE001  # whatever it is, the champion goes on
            _log.exception("the challenger could not score", extra={"rows": count})
            self._tell(count, "failed")
            return
        self._sink.record(model, rows, scores, batch.at, batch.origins, shadow=True)
        self._tell(count, "scored")

    def _tell(self, rows: int, outcome: str) -> None:
        if self._observer is not None:
            self._observer.shadowed(rows, outcome)
