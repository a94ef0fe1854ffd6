"""The client for programs with asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from itertools import islice
from types import TracebackType
from typing import Any, Self

import grpc

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from espalier_client import errors
from espalier_client.attempts import Attempts
from espalier_client.client import CHUNK
from espalier_client.connection import DEFAULT_RETRY, Retry, Tls, metadata, options
from espalier_client.results import Model, Prediction


class AsyncClient:
    """As `Client`, for one event loop."""

    def __init__(
        self,
        address: str,
        *,
        model: str = "",
        token: str | None = None,
        tls: Tls | None = None,
        timeout: float = 10.0,
        retry: Retry = DEFAULT_RETRY,
    ) -> None:
        """Connect at the first call; see `Client` for the arguments. Make it in a running loop."""
        self.address, self.model, self._timeout = address, model, timeout
        self._retry, self._metadata = retry, metadata(token)
        arguments = options(timeout, retry, tls)
        self._channel = (
            grpc.aio.insecure_channel(address, arguments)
            if tls is None
            else grpc.aio.secure_channel(address, tls.credentials(), arguments)
        )
        self._stub: Any = pb_grpc.PredictionServiceStub(self._channel)

    async def predict(self, entity_id: str) -> Prediction:
        """The prediction for one entity."""
        request = pb.PredictRequest(model=self.model, entity_id=entity_id)
        return Prediction.of(await self._call(self._stub.Predict, request))

    async def predict_many(
        self, entity_ids: Iterable[str], *, chunk: int = CHUNK
    ) -> AsyncIterator[Prediction]:
        """See `Client.predict_many`."""
        keys = iter(entity_ids)
        while part := list(islice(keys, chunk)):
            request = pb.BatchPredictRequest(model=self.model, entity_ids=part)
            answer = await self._call(self._stub.BatchPredict, request)
            for prediction in answer.predictions:
                yield Prediction.of(prediction)

    async def stream(self, entity_ids: AsyncIterable[str]) -> AsyncIterator[Prediction]:
        """See `Client.stream`; `entity_ids` is read ahead of the answers."""

        async def requests() -> AsyncIterator[pb.StreamPredictRequest]:
            async for key in entity_ids:
                yield pb.StreamPredictRequest(model=self.model, entity_id=key)

        call = self._stub.StreamPredict(requests(), metadata=self._metadata)
        try:
            async for answer in call:
                yield Prediction.of(answer.prediction)
        except grpc.aio.AioRpcError as error:
            raise errors.of_call(self.address, error) from error
        finally:
            call.cancel()

    async def get_model(self) -> Model:
        """The model that is served."""
        request = pb.GetModelRequest(model=self.model)
        return Model.of(await self._call(self._stub.GetModel, request))

    async def _call(self, method: Callable[..., Any], request: Any) -> Any:
        attempts = Attempts(self._timeout, self._retry)
        while True:
            try:
                return await method(request, timeout=attempts.timeout, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                told = errors.of_call(self.address, error)
                if (pause := attempts.pause(told)) is None:
                    raise told from error
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """End the connection and what is under way on it."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()
