"""A small gRPC client for one prediction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
from grpc_status import rpc_status

from espalier.errors import (
    ConfigurationError,
    DependencyUnreachable,
    EntityUnknown,
    EspalierError,
    UsageError,
)
from espalier.prediction.v1 import prediction_pb2, prediction_pb2_grpc

_ERRORS: dict[grpc.StatusCode, type[EspalierError]] = {
    grpc.StatusCode.NOT_FOUND: EntityUnknown,
    grpc.StatusCode.INVALID_ARGUMENT: UsageError,
    grpc.StatusCode.UNAVAILABLE: DependencyUnreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DependencyUnreachable,
    # Another gRPC server listens there.
    grpc.StatusCode.UNIMPLEMENTED: ConfigurationError,
}


@dataclass(frozen=True)
class Prediction:
    """One answer of the prediction server."""

    entity_id: str
    prediction: float
    score: float
    version: str
    status: str
    feature_time: datetime | None
    label: str = ""

    def line(self) -> str:
        """What it says, for a person."""
        found = f"{self.prediction:g}  score {self.score:.4f}"
        if self.label:
            found = f"{self.label}  probability {self.score:.4f}"
        elif self.prediction == self.score and self.score not in (0, 1):
            # Of a number both are the value.
            found = f"{self.prediction:.7g}"
        known = f"  features of {self.feature_time:%Y-%m-%d}" if self.feature_time else ""
        stale = "" if self.status == "OK" else f" ({self.status.lower().replace('_', ' ')})"
        return f"{found}  model version {self.version}{known}{stale}"


def predict(
    address: str, entity_id: str, *, model: str = "", timeout_seconds: float = 10.0
) -> Prediction:
    """Ask the server at `address` for one entity.

    Args:
        address: HOST:PORT.
        entity_id: The entity's key in the online store.
        model: The model's name; may be empty where the server has one.
        timeout_seconds: How long the answer may take.

    Raises:
        EntityUnknown: the online store has no row for it, or the server has no such model.
        UsageError: the request is not valid.
        DependencyUnreachable: the server does not answer, is not ready, or not in time.
        EspalierError: the server could not predict for another reason, which it tells.
    """
    request = prediction_pb2.PredictRequest(model=model, entity_id=entity_id)
    with grpc.insecure_channel(address) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        try:
            answer = stub.Predict(request, timeout=timeout_seconds)
        except grpc.RpcError as error:
            raise _error(address, error) from error
    status = prediction_pb2.EntityStatus.Name(answer.status).removeprefix("ENTITY_STATUS_")
    timed = answer.HasField("feature_time")
    return Prediction(
        entity_id=answer.entity_id,
        prediction=answer.prediction,
        score=answer.score,
        version=answer.model.version,
        status=status,
        feature_time=answer.feature_time.ToDatetime(tzinfo=UTC) if timed else None,
        label=answer.label,
    )


def _error(address: str, call: grpc.RpcError) -> EspalierError:
    """What a failed call tells."""
    assert isinstance(call, grpc.Call), "grpc raises what is both the error and the call"
    kind = _ERRORS.get(call.code(), EspalierError)
    # Our server says itself what to do, and marks what it says by details.
    ours = rpc_status.from_call(call) is not None
    fix = "" if ours else "is the prediction server there? See --address and ESPALIER_GRPC_ADDRESS"
    return kind(f"{address}: {call.details()}", fix=fix)
