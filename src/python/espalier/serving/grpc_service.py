"""gRPC: converts calls to the predictor and its values to messages."""

# ruff: noqa: N802, ARG002  # the names and arguments of the generated servicer

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from functools import lru_cache
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from espalier.serving.grpc_errors import Context
from espalier.serving.prediction import EntityStatus, ModelVersion, Prediction, ScoreSource
from espalier.serving.routing import Predicts

SERVICE: str = pb.DESCRIPTOR.services_by_name["PredictionService"].full_name

_STATUS = {
    EntityStatus.OK: pb.ENTITY_STATUS_OK,
    EntityStatus.UNKNOWN_ENTITY: pb.ENTITY_STATUS_UNKNOWN_ENTITY,
    EntityStatus.STALE_FEATURES: pb.ENTITY_STATUS_STALE_FEATURES,
    EntityStatus.MISSING_FEATURES: pb.ENTITY_STATUS_MISSING_FEATURES,
}
_SOURCE = {
    ScoreSource.MODEL: pb.SCORE_SOURCE_MODEL,
    ScoreSource.DEFAULT: pb.SCORE_SOURCE_DEFAULT,
    ScoreSource.NONE: pb.SCORE_SOURCE_NONE,
}


class PredictionService(pb_grpc.PredictionServiceServicer):
    """The contract of prediction.proto over a predictor. Errors pass on to the interceptor."""

    def __init__(self, predictor: Predicts, *, stream_in_flight: int = 64) -> None:
        """Serve `predictor`; one stream may have `stream_in_flight` requests under way."""
        self._predictor, self._stream_in_flight = predictor, stream_in_flight

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        """One entity; EntityUnknown when there is none."""
        found = await self._predictor.predict_one(
            request.entity_id, model=request.model, deadline=deadline_of(context)
        )
        return _response(found)

    async def BatchPredict(
        self, request: pb.BatchPredictRequest, context: Context
    ) -> pb.BatchPredictResponse:
        """Many entities, in the order asked."""
        found = await self._predictor.predict(
            request.entity_ids, model=request.model, deadline=deadline_of(context)
        )
        return pb.BatchPredictResponse(predictions=map(_response, found))

    async def StreamPredict(
        self, request_iterator: AsyncIterator[pb.StreamPredictRequest], context: Context
    ) -> AsyncIterator[pb.StreamPredictResponse]:
        """Entities as they come, answered in their order while later ones are under way."""
        loop, deadline = asyncio.get_running_loop(), deadline_of(context)
        room = asyncio.Semaphore(self._stream_in_flight)
        under_way: asyncio.Queue[asyncio.Task[list[Prediction]] | None] = asyncio.Queue()

        async def receive() -> None:
            try:
                async for request in request_iterator:
                    await room.acquire()
                    predict = self._predictor.predict(
                        [request.entity_id], model=request.model, deadline=deadline
                    )
                    under_way.put_nowait(loop.create_task(predict))
            finally:
                under_way.put_nowait(None)

        receiver = loop.create_task(receive())
        try:
            while (task := await under_way.get()) is not None:
                (found,) = await task
                room.release()
                yield pb.StreamPredictResponse(prediction=_response(found))
            await receiver
        finally:
            # The caller has left or a prediction failed: nobody waits for the rest.
            rest: list[asyncio.Task[Any]] = [receiver]
            while not under_way.empty():
                if (task := under_way.get_nowait()) is not None:
                    rest.append(task)
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """The model in force."""
        loaded = self._predictor.describe(request.model)
        manifest = loaded.manifest
        return pb.GetModelResponse(
            model=_model(loaded.identity),
            features=[
                pb.Feature(name=name, type=kind)
                for name, kind in zip(manifest.features, manifest.feature_types, strict=True)
            ],
            threshold=manifest.threshold,
            metrics=manifest.metrics,
            provenance=manifest.provenance,
            task=manifest.task,
            classes=manifest.classes,
        )


def deadline_of(context: Context) -> float | None:
    """The call's deadline on the event loop's clock."""
    remaining: float | None = context.time_remaining()
    return None if remaining is None else asyncio.get_running_loop().time() + remaining


@lru_cache(maxsize=16)
def _model(identity: ModelVersion) -> pb.ModelVersion:
    return pb.ModelVersion(name=identity.name, version=identity.version)


# The rows of a view have few times, and the conversion takes longer than a model run of one row.
@lru_cache(maxsize=4096)
def _timestamp(when: datetime) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(when)
    return time


def _response(found: Prediction) -> pb.PredictResponse:
    when = found.feature_time
    response = pb.PredictResponse(
        entity_id=found.entity_id,
        prediction=found.prediction,
        score=found.score,
        model=_model(found.model),
        feature_time=None if when is None else _timestamp(when),
        status=_STATUS[found.status],
        source=_SOURCE[found.source],
    )
    if found.label:
        response.label = found.label
        response.probabilities.extend(found.probabilities)
    return response
