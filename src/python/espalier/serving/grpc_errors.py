"""Turns errors of the prediction service into gRPC statuses with `google.rpc.ErrorInfo`."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from espalier.errors import EspalierError, Overloaded
from espalier.serving.metrics import Metrics

DOMAIN = "espalier.dev"
TRANSPORT = "grpc"

_log = logging.getLogger(__name__)

# grpc's classes are generic in their stubs alone.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the methods of one service and leaves all others alone, reflection among them."""

    def __init__(self, service: str, metrics: Metrics) -> None:
        """Wrap the methods of `service`, a full name, and count them in `metrics`."""
        self._prefix, self._metrics = f"/{service}/", metrics
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """See grpc.aio.ServerInterceptor."""
        method = handler_call_details.method
        if (wrapped := self._wrapped.get(method)) is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        # No handler is gRPC's way to say UNIMPLEMENTED.
        if handler is None or not method.startswith(self._prefix):
            return handler
        wrapped = self._wrap(method.removeprefix(self._prefix), handler)
        self._wrapped[method] = wrapped
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        coders = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary), **coders
            )
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(method, handler.stream_stream), **coders
            )
        raise AssertionError(f"method {method} is of a kind that the contract does not have")

    def _unary(self, method: str, behaviour: Any) -> Any:
        async def call(request: Any, context: Context) -> Any:
            async with _Call(self._metrics, method, context):
                return await behaviour(request, context)

        return call

    def _stream(self, method: str, behaviour: Any) -> Any:
        async def call(requests: Any, context: Context) -> AsyncIterator[Any]:
            async with _Call(self._metrics, method, context):
                async for response in behaviour(requests, context):
                    yield response

        return call


class _Call:
    """Counts one call and aborts it with the status of the error that leaves its block."""

    def __init__(self, metrics: Metrics, method: str, context: Context) -> None:
        self._metrics, self._method, self._context = metrics, method, context

    async def __aenter__(self) -> None:
        self._start = time.perf_counter()
        self._metrics.started(TRANSPORT)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        status = None
        if error is None:
            code = "OK"
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            code = "CANCELLED"
        elif isinstance(error, Exception):
            status = to_status(error, self._method)
            code = status_name(status.code)
        else:
            code = "INTERNAL"
        self._metrics.finished(TRANSPORT, self._method, code, time.perf_counter() - self._start)
        if status is not None:
            await self._context.abort_with_status(rpc_status.to_status(status))


def status_name(number: int) -> str:
    """The name of a gRPC status code's number."""
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)


def to_status(error: Exception, method: str) -> status_pb2.Status:
    """The status a client gets for `error`.

    An error of ours is told as it is. Any other one is logged under an id and only that is told:
    its text may hold what is not for clients.
    """
    if isinstance(error, EspalierError):
        code, message, reason = error.code, str(error), error.reason
        metadata = error.metadata
    else:
        code, reason, metadata = "INTERNAL", "INTERNAL", {"error_id": log_unexpected(error, method)}
        message = f"internal error {metadata['error_id']}; find it in the server's log"
    details = [error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)]
    status = status_pb2.Status(code=grpc.StatusCode[code].value[0], message=message)
    for detail in details:
        _attach(status, detail)
    if isinstance(error, Overloaded):
        _attach(status, error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1)))
    return status


def log_unexpected(error: Exception, method: str) -> str:
    """Log an error that is not one of ours, with its trace; give the id it is logged under."""
    error_id = uuid.uuid4().hex[:12]
    _log.error("unexpected error", exc_info=error, extra={"error_id": error_id, "method": method})
    return error_id


def _attach(status: status_pb2.Status, message: Any) -> None:
    packed = any_pb2.Any()
    packed.Pack(message)
    status.details.append(packed)
