"""Around every call of our gRPC services: who calls, what it counts, and its errors as statuses.

Errors carry `google.rpc.ErrorInfo`, and `RetryInfo` when it helps to try again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any, TypeAlias

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from espalier.errors import DependencyUnreachable, EspalierError, InvalidRequest, Unauthenticated
from espalier.serving.access import Access
from espalier.serving.caller import CURRENT, REQUEST_ID, TRACEPARENT, Caller
from espalier.serving.metrics import Metrics
from espalier.serving.refusals import refusal

DOMAIN = "espalier.dev"
TRANSPORT = "grpc"

_log = logging.getLogger(__name__)

# grpc's classes are generic in their stubs alone.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the methods of our services.

    From the others, health and reflection, it only keeps off messages that cannot be parsed.
    """

    def __init__(self, services: Sequence[str], metrics: Metrics, access: Access) -> None:
        """Wrap the methods of `services`, full names; `access` says who may call them."""
        self._services, self._metrics, self._access = frozenset(services), metrics, access
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}
        self._others: dict[str, Handler] = {}
        self._leaving: asyncio.Event | None = None
        self.held = 0

    def hold(self) -> Callable[[], None]:
        """Let new calls wait until what is returned is called, and refuse them then.

        For the moment when the server stops: it tells its clients to leave, and cancels what it has
        not looked at yet. Who waits for an answer sends nothing meanwhile; `held` are waiting.
        """
        self._leaving = asyncio.Event()
        return self._leaving.set

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """See grpc.aio.ServerInterceptor."""
        path = handler_call_details.method
        known = self._wrapped.get(path)
        if known is None:
            if (other := self._others.get(path)) is not None:
                return other
            handler = await continuation(handler_call_details)
            service, _, method = path[1:].rpartition("/")
            # No handler is gRPC's way to say UNIMPLEMENTED.
            if handler is None:
                return None
            if service not in self._services:
                self._others[path] = other = _kept_from_malformed(handler)
                return other
            known = self._wrap(method, handler), self._refusing(method, handler)
            self._wrapped[path] = known
        if self._leaving is not None:
            self.held += 1
            await self._leaving.wait()
            _REFUSED_WITH.set(DependencyUnreachable("the server is stopping", fix="ask another"))
            return known[1]
        # Before the message is parsed. What is set here is seen in the handler: it is one task.
        given = dict(handler_call_details.invocation_metadata)
        try:
            caller = self._access.admit(
                _text(given.get("authorization")),
                _text(given.get(REQUEST_ID)),
                _text(given.get(TRACEPARENT)),
            )
        except Unauthenticated as error:
            _REFUSED_WITH.set(error)
            return known[1]
        CURRENT.set(caller)
        return known[0]

    def _wrap(self, method: str, handler: Handler) -> Handler:
        coders = _coders(handler)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary), **coders
            )
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(method, handler.stream_stream), **coders
            )
        raise AssertionError(f"method {method} is of a kind that the contract does not have")

    def _refusing(self, method: str, handler: Handler) -> Handler:
        """A handler of the same kind that does not look at what was sent."""

        async def refuse(_: object, context: Context) -> Any:
            async with _Call(self._metrics, method, context):
                raise _REFUSED_WITH.get()

        async def refuse_stream(_: object, context: Context) -> AsyncIterator[Any]:
            async with _Call(self._metrics, method, context):
                raise _REFUSED_WITH.get()
            yield

        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(refuse)
        return grpc.stream_stream_rpc_method_handler(refuse_stream)

    def _unary(self, method: str, behaviour: Any) -> Any:
        access = self._access

        async def call(request: Any, context: Context) -> Any:
            async with _Call(self._metrics, method, context):
                if request is _MALFORMED:
                    raise _malformed()
                if access.rated:
                    access.spend(_caller(), _entities(request))
                return await behaviour(request, context)

        return call

    def _stream(self, method: str, behaviour: Any) -> Any:
        access = self._access

        async def given(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
            async for request in requests:
                if request is _MALFORMED:
                    raise _malformed()
                # A stream is slowed down and not refused: its sender waits, as gRPC lets it.
                if access.rated and (seconds := access.pause(_caller())):
                    await asyncio.sleep(seconds)
                yield request

        async def call(requests: Any, context: Context) -> AsyncIterator[Any]:
            async with _Call(self._metrics, method, context):
                async for response in behaviour(given(requests), context):
                    yield response

        return call


_REFUSED_WITH: ContextVar[EspalierError] = ContextVar("refused_with")


# In the place of a message that cannot be parsed: gRPC would answer with the parser's own words.
_MALFORMED = object()


def _tolerant(parse: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    assert parse is not None, "generated code gives one"

    def parse_or_mark(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return _MALFORMED

    return parse_or_mark


def _coders(handler: Handler) -> dict[str, Any]:
    """How a handler's messages are read and written, malformed ones marked."""
    return {
        "request_deserializer": _tolerant(handler.request_deserializer),
        "response_serializer": handler.response_serializer,
    }


def _malformed() -> InvalidRequest:
    return InvalidRequest("the message is malformed", fix="generate the client from the contract")


def _kept_from_malformed(handler: Handler) -> Handler:
    """The same handler, which tells a client of its malformed message as of its own fault."""
    told = grpc.StatusCode.INVALID_ARGUMENT, "the message is malformed"
    # The types know handlers of the other gRPC server, the one with threads.
    unary: Any = handler.unary_unary or handler.unary_stream
    stream: Any = handler.stream_stream

    async def call(request: Any, context: Context) -> Any:
        if request is _MALFORMED:
            await context.abort(*told)
        return await unary(request, context)

    async def call_stream(requests: Any, context: Context) -> AsyncIterator[Any]:
        async def given() -> AsyncIterator[Any]:
            async for request in requests:
                if request is _MALFORMED:
                    await context.abort(*told)
                yield request

        async for response in stream(given(), context):
            yield response

    coders = _coders(handler)
    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(call, **coders)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(call, **coders)
    return grpc.stream_stream_rpc_method_handler(call_stream, **coders)


def _caller() -> Caller:
    caller = CURRENT.get()
    assert caller is not None, "set before the handler was chosen"
    return caller


def _text(value: str | bytes | None) -> str | None:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _entities(request: Any) -> int:
    """How many entities or rows a unary request asks for; others count as one."""
    if (asked := getattr(request, "entity_ids", None)) is not None:
        return max(1, len(asked))
    if (tensors := getattr(request, "inputs", None)) is not None:
        rows = [int(tensor.shape[0]) for tensor in tensors if tensor.shape]
        return max(1, *rows) if rows else 1
    return 1


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
        seconds = time.perf_counter() - self._start
        self._metrics.finished(TRANSPORT, self._method, code, seconds)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("call", extra={"method": self._method, "code": code, "seconds": seconds})
        if status is not None:
            await self._context.abort_with_status(rpc_status.to_status(status))


def status_name(number: int) -> str:
    """The name of a gRPC status code's number."""
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)


def to_status(error: Exception, method: str) -> status_pb2.Status:
    """The status a client gets for `error`; see `refusal` for what it tells."""
    told = refusal(error, method)
    status = status_pb2.Status(code=grpc.StatusCode[told.code].value[0], message=told.message)
    _attach(
        status,
        error_details_pb2.ErrorInfo(reason=told.reason, domain=DOMAIN, metadata=told.metadata),
    )
    if told.retry_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(max(1, round(told.retry_seconds * 1e3)))
        _attach(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def _attach(status: status_pb2.Status, message: Any) -> None:
    packed = any_pb2.Any()
    packed.Pack(message)
    status.details.append(packed)
