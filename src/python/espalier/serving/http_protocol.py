"""uvicorn's HTTP/1.1 protocol with bounds on what a client may send, and on how long it may take.

httptools itself takes headers of any number and size, and uvicorn waits for ever for a request that
does not come, and for an answer to be read.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

MAX_HEAD_BYTES = 16_384
# What a header costs besides its bytes, as HTTP/2 counts it.
HEADER_BYTES = 32
MAX_PIPELINED = 16
# For a request to come whole, and for an answer to be read.
REQUEST_SECONDS = 10.0
ANSWER_SECONDS = 10.0


class HttpState(ServerState):
    """What the connections of one server share."""

    def __init__(self, max_connections: int = 10_000) -> None:
        """No connections, of at most `max_connections`."""
        super().__init__()
        self.max_connections = max_connections
        # Every answer is the last one of its connection.
        self.draining = False


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Its owner calls `check` about once a second.

    That is in the place of timers, which would have to be set and cleared for every request.
    """

    def __init__(
        self,
        config: Any,
        server_state: HttpState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """See uvicorn."""
        super().__init__(config, server_state, app_state, _loop)
        self._state, self._refused = server_state, False
        # Bytes of the head under way, and those that came since the parser last told of something.
        self._head, self._untold = 0, 0
        self._told = 0
        # When the request under way must be whole.
        self._due = math.inf
        # When the answers must be read, unless there is progress.
        self._read_due, self._progress = math.inf, (0, 0)
        self._answers = 0
        # The request that is answered now; `cycle` is the one that came last.
        self._running: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """A connection came; its first request must follow."""
        super().connection_made(transport)
        self._due = self.loop.time() + REQUEST_SECONDS
        if len(self.connections) > self._state.max_connections:
            self._refuse(b"503 Service Unavailable", b"OVERLOADED", b"too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone: whoever answers on it is told, also when other requests came after."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head = 0
        self._told += 1
        self._due = self.loop.time() + REQUEST_SECONDS

    def on_url(self, url: bytes) -> None:
        """A part of its target."""
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header is whole, or one of those after a body."""
        super().on_header(name, value)
        self._count_head(len(name) + len(value) + HEADER_BYTES)

    def on_headers_complete(self) -> None:
        """The head is whole: the request starts."""
        if len(self.pipeline) >= MAX_PIPELINED:
            # Each waits as objects a hundred times the size of its bytes.
            self.transport.abort()
            raise _RefusedError
        super().on_headers_complete()
        if self._state.draining:
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._told += 1
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._told += 1
        self._due = math.inf
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is on its way out."""
        self._answers += 1
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._refused:
            return
        self._unset_keepalive_if_required()
        if self._due == math.inf:
            # Empty lines before a request are none, and may not hold the connection.
            self._due = self.loop.time() + REQUEST_SECONDS
        told = self._told
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse(b"400 Bad Request", b"INVALID_REQUEST", b"the request is malformed")
        except httptools.HttpParserUpgrade:
            # To what we do not speak: the request is answered as it is.
            pass
        # A header or the line of a chunk that never ends is not told by the parser.
        self._untold = self._untold + len(data) if self._told == told else 0
        if self._untold > MAX_HEAD_BYTES:
            self._refuse_head()

    def check(self, now: float) -> None:
        """Leave the connection when its client has been waited for too long."""
        cycle = self.cycle
        owed = cycle is not None and not cycle.response_complete and not cycle.more_body
        if now >= self._due and not owed:
            self.transport.close()
        # A closed transport waits for its last bytes to be taken, too.
        if not self.transport.get_write_buffer_size():
            self._read_due = math.inf
            return
        # No answer is begun while the buffer is full, so a client that reads makes progress.
        progress = (self._answers, len(self.pipeline))
        if self._read_due == math.inf or progress != self._progress:
            self._read_due, self._progress = now + ANSWER_SECONDS, progress
        elif now >= self._read_due:
            self.transport.abort()

    def drain(self) -> None:
        """Tell the client with the next answer, or the one under way, that it is the last one."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """End the connection, at once when no answer is owed on it."""
        if self.flow.write_paused:
            # What its client does not read would be waited for.
            self.transport.abort()
        elif self._due == math.inf and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()
        else:
            self.drain()

    def _count_head(self, size: int) -> None:
        self._told += 1
        self._head += size
        if self._head > MAX_HEAD_BYTES:
            self._refuse_head()
            raise _RefusedError

    def _refuse_head(self) -> None:
        self._refuse(
            b"431 Request Header Fields Too Large",
            b"INVALID_REQUEST",
            b"the request's head is too large",
        )

    def _refuse(self, status: bytes, reason: bytes, message: bytes) -> None:
        """Read no more, and answer so when it is the turn of this request."""
        if self._refused:
            return
        self._refused, cycle = True, self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                # The answers to the requests before are the last ones.
                cycle.keep_alive = False
                return
            if self.pipeline or cycle.response_started:
                self.transport.abort()
                return
        body = b'{"reason":"%b","message":"%b"}' % (reason, message)
        self.transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b" % (status, len(body), body)
        )
        self.transport.close()


class _RefusedError(Exception):
    """Ends the parser's work on a request that was refused."""
