"""The client for programs without asyncio; see `aio` for the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Self

import grpc

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from espalier_client import errors
from espalier_client.attempts import Attempts
from espalier_client.connection import DEFAULT_RETRY, Retry, Tls, metadata, options
from espalier_client.results import Model, Prediction

CHUNK = 10_000


class Client:
    """One connection to a prediction server; threads may share it.

    Calls raise `PredictionError`. One that finds nobody (`UNAVAILABLE`) is tried again as `retry`
    says, one that is too much (`RESOURCE_EXHAUSTED`) when the server says so, both within `timeout`.
    """

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
        """Connect at the first call.

        Args:
            address: HOST:PORT of the server's gRPC side.
            model: Which of the served models; empty for the only one.
            token: The caller's token, when the server asks for one.
            tls: For a server with TLS; None for plain text.
            timeout: Seconds for a call, its retries among them; a stream has no deadline.
            retry: How calls are tried again.

        Raises:
            OSError: a file of `tls` cannot be read.
            ValueError: `timeout` is no time.
        """
        self.address, self.model, self._timeout = address, model, timeout
        self._retry, self._metadata = retry, metadata(token)
        arguments = options(timeout, retry, tls)
        self._channel = (
            grpc.insecure_channel(address, arguments)
            if tls is None
            else grpc.secure_channel(address, tls.credentials(), arguments)
        )
        self._stub = pb_grpc.PredictionServiceStub(self._channel)

    def predict(self, entity_id: str) -> Prediction:
        """The prediction for one entity."""
        request = pb.PredictRequest(model=self.model, entity_id=entity_id)
        return Prediction.of(self._call(self._stub.Predict, request))

    def predict_many(
        self, entity_ids: Iterable[str], *, chunk: int = CHUNK
    ) -> Iterator[Prediction]:
        """Predictions for any number of entities, in their order, asked for by chunks.

        An unknown entity is a status in its place. A chunk is of one model version and has a
        deadline of its own; the next is asked for once the one before is used up.
        """
        keys = iter(entity_ids)
        while part := list(islice(keys, chunk)):
            request = pb.BatchPredictRequest(model=self.model, entity_ids=part)
            yield from map(Prediction.of, self._call(self._stub.BatchPredict, request).predictions)

    def stream(self, entity_ids: Iterable[str]) -> Iterator[Prediction]:
        """Predictions for entities as they come, in their order; an unknown one is a status.

        `entity_ids` is read in a thread, ahead of the answers. Leaving the iterator ends the
        stream. It has no deadline, and is not tried again once an answer came: what was answered
        says where to go on.
        """
        requests = (pb.StreamPredictRequest(model=self.model, entity_id=key) for key in entity_ids)
        call = self._stub.StreamPredict(requests, metadata=self._metadata)
        try:
            for answer in call:
                yield Prediction.of(answer.prediction)
        except grpc.RpcError as error:
            raise errors.of_call(self.address, error) from error
        finally:
            call.cancel()

    def get_model(self) -> Model:
        """The model that is served."""
        return Model.of(self._call(self._stub.GetModel, pb.GetModelRequest(model=self.model)))

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        attempts = Attempts(self._timeout, self._retry)
        while True:
            try:
                return method(request, timeout=attempts.timeout, metadata=self._metadata)
            except grpc.RpcError as error:
                told = errors.of_call(self.address, error)
                if (pause := attempts.pause(told)) is None:
                    raise told from error
            time.sleep(pause)

    def close(self) -> None:
        """End the connection and what is under way on it."""
        self._channel.close()

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()
