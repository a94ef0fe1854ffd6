"""What a call can end with instead of an answer: one tree, told from `google.rpc.ErrorInfo`."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.rpc import error_details_pb2, status_pb2

_DETAILS = "grpc-status-details-bin"


class PredictionError(Exception):
    """A call failed.

    Attributes:
        message: What is wrong.
        fix: What to do about it; empty when nobody knows.
        reason: UPPER_SNAKE, by which to tell errors apart; the status' name when no server of ours
            answered.
        code: The name of the gRPC status.
        metadata: Values for a program to read, such as `entity_id`.
        request_id: By which the server's log knows the call; empty when it never came there.
        retry_seconds: When the server says to try again; None when it does not.
    """

    def __init__(
        self,
        message: str,
        *,
        fix: str = "",
        reason: str = "",
        code: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_seconds: float | None = None,
    ) -> None:
        """Describe one failure; see the attributes."""
        super().__init__(message, fix)
        self.message, self.fix, self.reason, self.code = message, fix, reason, code
        self.metadata = dict(metadata or {})
        self.request_id = self.metadata.pop("request_id", "")
        self.retry_seconds = retry_seconds

    def __str__(self) -> str:
        """The whole error on one line."""
        told = f"{self.message}; {self.fix}" if self.fix else self.message
        return f"{self.reason}: {told}"


class InvalidRequest(PredictionError):
    """The request is outside of what the contract or the server allows."""


class EntityUnknown(PredictionError):
    """The online store has no row for the entity."""


class ModelUnknown(PredictionError):
    """The server does not serve the named model."""


class FeaturesUnusable(PredictionError):
    """The entity's features are missing or stale, and the project refuses to predict with them."""


class Unauthenticated(PredictionError):
    """The call needs a valid token."""


class Overloaded(PredictionError):
    """The server's queue is full, or the caller's rate is used up."""


class Unavailable(PredictionError):
    """The server, or what it needs, does not answer."""


class DeadlineExceeded(PredictionError):
    """No answer came within the client's timeout, or none could."""


class ServerFault(PredictionError):
    """The server failed; it knows why under its request's id."""


_BY_REASON = {"ENTITY_UNKNOWN": EntityUnknown, "MODEL_UNKNOWN": ModelUnknown}
_BY_CODE: dict[str, type[PredictionError]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "FAILED_PRECONDITION": FeaturesUnusable,
    "UNAUTHENTICATED": Unauthenticated,
    "RESOURCE_EXHAUSTED": Overloaded,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
}
# When no server of ours said it.
_FIXES = {
    "UNAVAILABLE": "is a prediction server there, and does it speak TLS as the client does?",
    "DEADLINE_EXCEEDED": "give the client a longer timeout, or ask again",
    "UNIMPLEMENTED": "another gRPC server listens there",
}


def of_call(address: str, error: grpc.RpcError) -> PredictionError:
    """What a failed call to `address` tells."""
    # grpc raises what is both the error and the call; the asyncio one shares these methods.
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    code, text = error.code().name, error.details() or ""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS:
            for detail in status_pb2.Status.FromString(value).details:
                detail.Unpack(info)
                detail.Unpack(retry)
    if info.reason:
        message, _, fix = text.partition("; ")
    else:
        message, fix = f"{address}: {text}", _FIXES.get(code, "")
    kind = _BY_REASON.get(info.reason) or _BY_CODE.get(code, ServerFault)
    return kind(
        message,
        fix=fix,
        reason=info.reason or code,
        code=code,
        metadata=info.metadata,
        retry_seconds=(
            retry.retry_delay.ToTimedelta().total_seconds()
            if retry.HasField("retry_delay")
            else None
        ),
    )
