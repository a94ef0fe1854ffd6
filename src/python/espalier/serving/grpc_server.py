"""grpc.aio's server with a main loop of our own, as its own one can be ended by any caller.

It decodes the name of a method that is not registered, outside of any `try`: one call whose path is
not UTF-8 stops the server, before a token is looked at (seen in grpcio 1.85.1). It also waits for
the next call of all methods anew at each call, which takes longer than an answer. Here each method
is waited for by itself, and calls of no method of ours are answered without a look at the name.
"""

# ruff: noqa: SLF001  # there is no public way to it; fuzz_test.py tells when it is another one

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    # What is compiled, and the class behind grpc.aio.server, have no types.
    Server: Any = object
    cygrpc: Any = None
else:
    from grpc._cython import cygrpc
    from grpc.aio._server import Server

# No method's name, so that it has no handler.
_UNKNOWN = ""


class GrpcServer(Server):  # type: ignore[misc]  # see above
    """A grpc.aio.Server whose methods are registered, as generated code registers them."""

    def __init__(
        self,
        *,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        options: Sequence[tuple[str, int]],
        maximum_concurrent_rpcs: int,
    ) -> None:
        """See grpc.aio.server."""
        # Otherwise a header that is no text is logged as it is, with a trace.
        logging.getLogger("grpc._cython.cygrpc").addFilter(_is_ours)
        self._loop = asyncio.get_running_loop()
        self._server = _Core(
            self._loop, None, (), tuple(interceptors), tuple(options), maximum_concurrent_rpcs
        )
        self._server.calls = _Calls(tuple(interceptors), maximum_concurrent_rpcs)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: object) -> None:
        """Do nothing: generated code gives the same handlers as registered ones."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Any]
    ) -> None:
        """See grpc.aio.Server."""
        super().add_registered_method_handlers(service_name, dict(method_handlers))
        self._server.calls.add(service_name, method_handlers)


def _is_ours(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Invalid encoding")


class _Calls:
    """The calls under way, and what answers them."""

    def __init__(self, interceptors: tuple[grpc.aio.ServerInterceptor, ...], most: int) -> None:
        self._interceptors, self._most = interceptors, most
        self._handlers: dict[str, Any] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    def add(self, service: str, handlers: Mapping[str, Any]) -> None:
        self._handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}

    async def take(self, core: _Core, method: bytes | None) -> None:
        """Start each call of `method`, or of unknown ones, until the server stops."""
        loop = asyncio.get_running_loop()
        name = _UNKNOWN if method is None else method.decode()
        interceptors = () if method is None else self._interceptors
        resolver = cygrpc._MethodResolver([], self._handlers)
        while True:
            if method is None:
                state = await core._request_call()
            else:
                state = await core._request_registered_call(method)
            exceeded = len(self._under_way) >= self._most
            answer = cygrpc._handle_rpc(name, resolver, interceptors, state, loop, exceeded)
            task = loop.create_task(cygrpc._schedule_rpc_coro(answer, state, loop, name))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)


class _Core(cygrpc.AioServer):  # type: ignore[misc]  # see above
    calls: _Calls

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[None]:
        # In the place of the next call: it ends when the server stops, with the error of that.
        return asyncio.get_running_loop().create_task(self.calls.take(self, method))
