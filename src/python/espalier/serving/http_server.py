"""Serves an ASGI application on a listening socket, and stops without losing a request."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from contextlib import suppress
from email.utils import formatdate
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from espalier.serving.http_protocol import REQUEST_SECONDS, BoundedProtocol, HttpState
from espalier.serving.listeners import BACKLOG

# Longer than the 60 s that clients and balancers commonly keep an idle connection: who closes it
# first must not be us, as a request may be on its way.
KEEP_ALIVE_SECONDS = 75
_CHECK_SECONDS = 1.0
# An idle connection stays so long when the server stops: a request on its way is told to go
# elsewhere, and not reset.
_IDLE_SECONDS = 0.5
_POLL_SECONDS = 0.01


class HttpServer:
    """uvicorn's HTTP/1.1 over our own sockets; all methods belong to one event loop."""

    def __init__(
        self, app: ASGIApp, *, max_connections: int, context: ssl.SSLContext | None = None
    ) -> None:
        """Describe the server; nothing is started."""
        self._config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        self._config.load()
        self._state, self._context = HttpState(max_connections), context
        self._taken: set[asyncio.Task[Any]] = set()
        self.stopped = False

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._state.connections)

    async def start(self, listener: socket.socket) -> None:
        """Serve the connections of `listener`."""
        self._loop = asyncio.get_running_loop()
        self._set_date()
        # A socket of our own beside the loop's, which closes its one.
        self._listener = listener.dup()
        self._server = await self._loop.create_server(
            self._connection, sock=listener, backlog=BACKLOG, **self._tls()
        )
        self._watch = self._loop.create_task(self._check_for_ever())

    def drain(self) -> None:
        """From now on every answer ends its connection, so that clients go elsewhere by it."""
        self._state.draining = True
        for connection in self._connections():
            connection.drain()

    async def stop(self, seconds: float) -> None:
        """Take no more connections, answer what came, and end within `seconds`."""
        self.stopped = True
        end = self._loop.time() + seconds
        self.drain()
        self._server.close()
        self._take_the_rest()
        await self._wait_for_none(end - max(seconds - _IDLE_SECONDS, seconds / 2))
        for connection in self._connections():
            connection.shutdown()
        await self._wait_for_none(end)
        for connection in self._connections():
            connection.transport.abort()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=seconds)
        self._watch.cancel()

    async def _wait_for_none(self, end: float) -> None:
        """Wait until there is no connection, until `end` at most."""
        # A turn of the loop first: what came just now is a connection too.
        await asyncio.sleep(_POLL_SECONDS)
        while self._state.connections and self._loop.time() < end:  # noqa: ASYNC110  # uvicorn's set
            await asyncio.sleep(_POLL_SECONDS)

    def _take_the_rest(self) -> None:
        """Take what the system has accepted for us: with the socket it would be reset."""
        self._listener.settimeout(0)
        with self._listener, suppress(BlockingIOError):
            while True:
                accepted, _ = self._listener.accept()
                accepted.settimeout(0)
                taking = self._loop.connect_accepted_socket(
                    self._connection, accepted, **self._tls()
                )
                task = self._loop.create_task(taking)
                self._taken.add(task)
                task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._taken.discard(task)
        if not task.cancelled():
            # A handshake that failed concerns nobody but that client.
            task.exception()

    def _connection(self) -> BoundedProtocol:
        return BoundedProtocol(self._config, self._state, {})

    def _connections(self) -> list[BoundedProtocol]:
        return [c for c in self._state.connections if isinstance(c, BoundedProtocol)]

    def _tls(self) -> dict[str, Any]:
        if self._context is None:
            return {}
        return {
            "ssl": self._context,
            "ssl_handshake_timeout": REQUEST_SECONDS,
            "ssl_shutdown_timeout": REQUEST_SECONDS,
        }

    async def _check_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            self._set_date()
            now = self._loop.time()
            for connection in self._connections():
                connection.check(now)

    def _set_date(self) -> None:
        date = formatdate(time.time(), usegmt=True).encode()
        self._state.default_headers = [(b"date", date)]
