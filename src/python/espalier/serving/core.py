"""The predictor: entity keys in, predictions out. It knows no transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from espalier.errors import EntityUnknown, InvalidRequest, ModelNotReady, ModelUnknown, ScoreInvalid
from espalier.serving.batching import Batcher, BatchObserver
from espalier.serving.decision import Outcome, decide
from espalier.serving.loading import LoadedModel
from espalier.serving.prediction import EntityStatus, Prediction
from espalier.serving.reader import FeatureReader, FeatureRows

MAX_ENTITY_ID = 256
MAX_ENTITIES = 10_000
# Up to this many rows a model run blocks the event loop for less than handing it over would take.
_INLINE_ROWS = 32
# One read's size: what a request asks beyond it is read in turns, so that the loop stays free.
_READ_ROWS = 512
# Without a caller for this long, those who were refused have gone elsewhere.
_QUIET_SECONDS, _LONGEST_QUIET_WAIT = 0.1, 1.0


class Observer(BatchObserver, Protocol):
    """Is told what a predictor does, for metrics."""

    def features_read(self, seconds: float, oldest: timedelta | None) -> None:
        """A read took `seconds`; its oldest row had the age `oldest`."""

    def scored(self, seconds: float) -> None:
        """A model run took `seconds`."""


class PredictionSink(Protocol):
    """Keeps what was served."""

    def record(
        self, model: LoadedModel, rows: FeatureRows, scores: NDArray[np.float64], at: datetime
    ) -> None:
        """Take the scored rows of a batch; must not wait."""


class Predictor:
    """Predicts with the model in force.

    `model` may be replaced at any time: a batch takes it once, so no answer mixes versions.
    """

    def __init__(
        self,
        reader: FeatureReader,
        *,
        name: str,
        observer: Observer | None = None,
        sink: PredictionSink | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        max_batch: int = 256,
        max_waiting: int = 4096,
        workers: int = 2,
    ) -> None:
        """Make a predictor without a model.

        Args:
            reader: Where features come from.
            name: The registered model that is served.
            observer: Is told of reads, runs and batches.
            sink: Keeps what is served.
            clock: Says what time it is, for the features' age.
            max_batch: How many keys of several requests are read and scored together.
            max_waiting: How many keys may wait before requests are refused.
            workers: How many batches may be under way at once.
        """
        self.name, self.reader = name, reader
        self.model: LoadedModel | None = None
        self._observer, self._sink, self._clock = observer, sink, clock
        self._threads: Executor = ThreadPoolExecutor(workers, "score")
        self._batcher = Batcher[str, Outcome](
            self._run,
            max_batch=max_batch,
            max_waiting=max_waiting,
            workers=workers,
            observer=observer,
        )

    @property
    def waiting(self) -> int:
        """How many keys wait for a batch."""
        return self._batcher.waiting

    def describe(self, model: str = "") -> LoadedModel:
        """The model in force.

        Raises:
            ModelUnknown: this server does not serve `model`.
            ModelNotReady: it is not loaded yet.
        """
        if model not in ("", self.name):
            raise ModelUnknown(
                f"no model {model[:MAX_ENTITY_ID]!r} here",
                fix=f"ask for {self.name!r} or leave it empty",
            )
        if self.model is None:
            raise ModelNotReady(
                f"model {self.name} is not loaded yet", fix="try again when /ready says so"
            )
        return self.model

    async def predict(
        self, entity_ids: Sequence[str], *, model: str = "", deadline: float | None = None
    ) -> list[Prediction]:
        """Predictions for `entity_ids`, in their order, by one model version.

        Args:
            entity_ids: Keys in the online store; one may stand there twice.
            model: The model's name, or empty for the one that is served.
            deadline: When the answer is of no more use, on the event loop's clock.

        Raises:
            InvalidRequest: a key is empty, too long or holds a NUL, or there are too many keys.
            ModelUnknown, ModelNotReady: see `describe`.
            FeaturesUnavailable: the online store does not answer.
            ScoreInvalid: the model gave no probability for one of them.
            Overloaded, DeadlineTooShort: see `Batcher.submit`.
        """
        _validate(entity_ids)
        self.describe(model)
        predictions = []
        for result in await self._batcher.submit(entity_ids, deadline):
            if isinstance(result, ScoreInvalid):
                raise result
            predictions.append(result)
        return predictions

    async def predict_one(
        self, entity_id: str, *, model: str = "", deadline: float | None = None
    ) -> Prediction:
        """The prediction for one entity.

        Raises:
            EntityUnknown: the online store has no row for it.
            EspalierError: see `predict`.
        """
        (prediction,) = await self.predict([entity_id], model=model, deadline=deadline)
        if prediction.status is EntityStatus.UNKNOWN_ENTITY:
            raise EntityUnknown(
                f"no features for entity {entity_id!r} in the online store",
                fix="check the key; a new entity is known after the next materialize",
                entity_id=entity_id,
            )
        return prediction

    async def close(self, seconds: float) -> bool:
        """Answer what is under way within `seconds` and refuse the rest; true when all was.

        Then wait, for a second at most, until no caller comes any more to be refused.
        """
        drained = await self._batcher.close(seconds)
        self._threads.shutdown(wait=False, cancel_futures=True)
        loop = asyncio.get_running_loop()
        latest = loop.time() + _LONGEST_QUIET_WAIT
        # Not for an event: what is waited for is that there is none.
        while loop.time() < min(self._batcher.refused_at + _QUIET_SECONDS, latest):  # noqa: ASYNC110
            await asyncio.sleep(_QUIET_SECONDS / 4)
        return drained

    async def _run(self, keys: Sequence[str]) -> Mapping[str, Outcome]:
        model = self.describe()
        outcomes: dict[str, Outcome] = {}
        for start in range(0, len(keys), _READ_ROWS):
            outcomes |= await self._run_part(model, keys[start : start + _READ_ROWS])
        return outcomes

    async def _run_part(self, model: LoadedModel, keys: Sequence[str]) -> dict[str, Outcome]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        rows = await self.reader.read(model.source, keys)
        now, read = self._clock(), loop.time()
        if self._observer is not None:
            oldest = now - min(rows.times) if rows.times else None
            self._observer.features_read(read - began, oldest)
        scores = np.empty(0)
        if rows.keys:
            scores = await self._score(model, rows.matrix)
            if self._observer is not None:
                self._observer.scored(loop.time() - read)
            if self._sink is not None:
                self._sink.record(model, rows, scores, now)
        return decide(model, keys, rows, scores, now=now)

    async def _score(self, model: LoadedModel, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        if len(matrix) <= _INLINE_ROWS:
            return model.scorer.run(matrix)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, model.scorer.run, matrix)


def _validate(entity_ids: Sequence[str]) -> None:
    if len(entity_ids) > MAX_ENTITIES:
        raise InvalidRequest(
            f"{len(entity_ids)} entities in one request", fix=f"ask for at most {MAX_ENTITIES}"
        )
    for entity_id in entity_ids:
        if not entity_id:
            raise InvalidRequest("an entity's key is empty", fix="set entity_id")
        if len(entity_id) > MAX_ENTITY_ID:
            raise InvalidRequest(
                f"an entity's key has {len(entity_id)} characters",
                fix=f"it may have {MAX_ENTITY_ID}",
            )
        # Neither can be a text in PostgreSQL, where it would fail the whole batch.
        if "\0" in entity_id or not _encodable(entity_id):
            raise InvalidRequest("an entity's key holds a NUL or half a surrogate pair")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
