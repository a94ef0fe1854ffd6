"""The predictor: entity keys in, predictions out. It knows no transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import compress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from espalier.errors import (
    EntityUnknown,
    EspalierError,
    FeaturesUnusable,
    InvalidRequest,
    ModelNotReady,
    ModelUnknown,
    ScoreInvalid,
)
from espalier.features.layout import is_integer_key
from espalier.policies import Serving
from espalier.serving.batching import Batcher, BatchObserver, Origins
from espalier.serving.decision import Judged, Outcome, Policy, decide, judge
from espalier.serving.loading import LoadedModel
from espalier.serving.prediction import EntityStatus, Prediction, ScoreSource
from espalier.serving.reader import FeatureReader, FeatureRows
from espalier.serving.scorer import valid
from espalier.serving.scoring import run_model

MAX_ENTITY_ID = 256
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

    def predicted(self, counts: Mapping[tuple[str, str], int]) -> None:
        """So many entities of a batch had a status and a score's source."""


class PredictionSink(Protocol):
    """Keeps what was served."""

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
        """Take the scored rows of a batch, and who asked for each; must not wait."""


class Shadow(Protocol):
    """Scores what was served once more, by another model."""

    def offer(
        self, champion: LoadedModel, rows: FeatureRows, at: datetime, origins: Origins[str]
    ) -> None:
        """Take the rows that `champion` scored; must not wait."""


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
        shadow: Shadow | None = None,
        policy: Policy | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        max_batch: int = 256,
        max_waiting: int = 4096,
        max_entities: int = 100_000,
        integer_keys: bool = False,
        workers: int = 2,
    ) -> None:
        """Make a predictor without a model.

        Args:
            reader: Where features come from.
            name: The registered model that is served.
            observer: Is told of reads, runs and batches.
            sink: Keeps what is served.
            shadow: Is offered what was scored.
            policy: What to do about missing and stale features; see `Serving` for the default.
            clock: Says what time it is, for the features' age.
            max_batch: How many keys of several requests are read and scored together.
            max_waiting: How many keys may wait before requests are refused.
            max_entities: How many keys one request may have.
            integer_keys: Whether the store's keys are integers; other ones are then refused.
            workers: How many batches may be under way at once.
        """
        self._max_entities, self._integer_keys = max_entities, integer_keys
        self.name, self.reader = name, reader
        self.model: LoadedModel | None = None
        self._observer, self._sink, self._clock = observer, sink, clock
        self._shadow, self._policy = shadow, policy or Policy(Serving())
        self._max_batch = max_batch
        self._batcher = Batcher[str, Outcome](
            self._run,
            max_batch=max_batch,
            max_waiting=max_waiting,
            workers=workers,
            observer=observer,
        )
        self._explaining = asyncio.Semaphore(1)
        # Large requests take turns among themselves, so that no small one waits behind them.
        self._bulk = Batcher[str, Outcome](
            self._run,
            max_batch=max_batch,
            max_waiting=max(max_waiting, 2 * max_entities),
            workers=1,
            observer=observer,
        )

    @property
    def waiting(self) -> int:
        """How many keys wait for a batch."""
        return self._batcher.waiting + self._bulk.waiting

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
            InvalidRequest: a key is empty, too long, holds a NUL or is not of the store's type, or
                there are too many keys.
            ModelUnknown, ModelNotReady: see `describe`.
            FeaturesUnavailable: the online store does not answer.
            ScoreInvalid: the model gave no probability, or no number, for one of them.
            Overloaded, DeadlineTooShort: see `Batcher.submit`.
        """
        _validate(entity_ids, self._max_entities, integers=self._integer_keys)
        self.describe(model)
        predictions = []
        batcher = self._batcher if len(entity_ids) <= self._max_batch else self._bulk
        for result in await batcher.submit(entity_ids, deadline):
            if isinstance(result, ScoreInvalid):
                raise result
            predictions.append(result)
        return predictions

    async def predict_one(
        self, entity_id: str, *, model: str = "", deadline: float | None = None
    ) -> Prediction:
        """The prediction for one entity.

        Raises:
            EntityUnknown: the online store has no row for it, and the project refuses that.
            FeaturesUnusable: they are missing or stale, and the project refuses that.
            EspalierError: see `predict`.
        """
        (prediction,) = await self.predict([entity_id], model=model, deadline=deadline)
        if prediction.source is ScoreSource.NONE:
            raise _refusal(prediction)
        return prediction

    async def explain(
        self, entity_id: str, *, model: str = ""
    ) -> tuple[Prediction, dict[str, float | None]]:
        """A prediction with the features it was made of, by name; nothing of it is logged.

        Raises:
            EspalierError: see `predict_one`.
        """
        _validate([entity_id], 1, integers=self._integer_keys)
        loaded = self.describe(model)
        # One at a time, so that no flood of them takes the connections that predictions need.
        async with self._explaining:
            rows = await self.reader.read(loaded.source, [entity_id])
        judged = judge(loaded, [entity_id], rows, self._policy, now=self._clock())
        scores = loaded.scorer.run(judged.rows.matrix) if judged.rows.keys else np.empty(0)
        ok = valid(scores, loaded.manifest.task)
        outcome = decide(loaded, judged, scores, ok)[entity_id]
        if isinstance(outcome, EspalierError):
            raise outcome
        if outcome.source is ScoreSource.NONE:
            raise _refusal(outcome)
        values = (
            rows.matrix[0].tolist() if rows.keys else [float("nan")] * len(loaded.source.features)
        )
        return outcome, {
            name: None if np.isnan(value) else value
            for name, value in zip(loaded.source.features, values, strict=True)
        }

    async def close(self, seconds: float) -> bool:
        """Answer what is under way within `seconds` and refuse the rest; true when all was.

        Then wait, for a second at most, until no caller comes any more to be refused.
        """
        batchers = self._batcher, self._bulk
        drained = all(await asyncio.gather(*(batcher.close(seconds) for batcher in batchers)))
        loop = asyncio.get_running_loop()
        latest = loop.time() + _LONGEST_QUIET_WAIT
        # Not for an event: what is waited for is that there is none.
        while loop.time() < min(max(b.refused_at for b in batchers) + _QUIET_SECONDS, latest):  # noqa: ASYNC110
            await asyncio.sleep(_QUIET_SECONDS / 4)
        return drained

    async def _run(self, keys: Sequence[str], origins: Origins[str]) -> Mapping[str, Outcome]:
        model = self.describe()
        outcomes: dict[str, Outcome] = {}
        for start in range(0, len(keys), _READ_ROWS):
            outcomes |= await self._run_part(model, keys[start : start + _READ_ROWS], origins)
        return outcomes

    async def _run_part(
        self, model: LoadedModel, keys: Sequence[str], origins: Origins[str]
    ) -> dict[str, Outcome]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        found = await self.reader.read(model.source, keys)
        now, read = self._clock(), loop.time()
        if self._observer is not None:
            known = [when for when in found.times if when is not None]
            self._observer.features_read(read - began, now - min(known) if known else None)
        judged = judge(model, keys, found, self._policy, now=now)
        rows, scores = judged.rows, np.empty(0)
        if rows.keys:
            scores = await run_model(model, rows.matrix)
            if self._observer is not None:
                self._observer.scored(loop.time() - read)
            if self._sink is not None:
                self._sink.record(model, rows, scores, now, origins)
            if self._shadow is not None:
                self._shadow.offer(model, rows, now, origins)
        ok = valid(scores, model.manifest.task)
        if self._observer is not None:
            self._observer.predicted(_counts(judged, ok))
        return decide(model, judged, scores, ok)


def _refusal(prediction: Prediction) -> EspalierError:
    """The error of one entity that no prediction is made for."""
    key = prediction.entity_id
    if prediction.status is EntityStatus.UNKNOWN_ENTITY:
        return EntityUnknown(
            f"no features for entity {key!r} in the online store",
            fix="check the key; a new entity is known after the next materialize",
            entity_id=key,
        )
    what = "are stale" if prediction.status is EntityStatus.STALE_FEATURES else "are incomplete"
    return FeaturesUnusable(
        f"the features of entity {key!r} {what}",
        fix="ask again after the next materialize",
        entity_id=key,
        status=prediction.status.value,
    )


def _counts(judged: Judged, ok: NDArray[np.bool_]) -> dict[tuple[str, str], int]:
    """How many entities of a batch have each status and source."""
    counts: dict[tuple[str, str], int] = {}
    invalid = len(ok) - int(np.count_nonzero(ok))
    if invalid:
        counts["", "INVALID"] = invalid
    scored = judged.statuses if not invalid else list(compress(judged.statuses, ok.tolist()))
    faults = [status for status in scored if status is not EntityStatus.OK]
    if sound := len(scored) - len(faults):
        counts["OK", "MODEL"] = sound
    if faults or judged.answered:
        pairs: list[tuple[EntityStatus, ScoreSource]]
        pairs = [(status, ScoreSource.MODEL) for status in faults]
        pairs += [(answer.status, answer.source) for answer in judged.answered.values()]
        for status, source in pairs:
            pair = (status.value, source.value)
            counts[pair] = counts.get(pair, 0) + 1
    return counts


def _validate(entity_ids: Sequence[str], most: int, *, integers: bool) -> None:
    if len(entity_ids) > most:
        raise InvalidRequest(
            f"{len(entity_ids)} entities in one request", fix=f"ask for at most {most}"
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
        # Here, since the store would refuse the whole batch for it.
        if integers and not is_integer_key(entity_id):
            raise InvalidRequest(
                f"an entity's key is {entity_id[:32]!r}", fix="send an integer, written as 42"
            )


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
