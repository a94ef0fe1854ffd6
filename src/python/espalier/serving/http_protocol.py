"""uvicorn's HTTP/1.1 protocol with bounds on a request's head and on the time it may take."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 16_384
MAX_PIPELINED = 16
REQUEST_SECONDS = 10.0


class BoundedProtocol(HttpToolsProtocol):
    """Refuses a head that is too large, and leaves a connection whose request does not come.

    It also leaves one that sends many requests without waiting for answers.

    httptools itself takes headers of any number and size, and waits for them for ever.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """See uvicorn."""
        super().__init__(*arguments, **options)
        self._in_head, self._refused = True, False
        # Of the head under way: all bytes that came, and those of the headers that are whole.
        self._received, self._parsed = 0, 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """A connection came; its first request must follow."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head, self._received, self._parsed = True, 0, 0
        self._start_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header is whole."""
        super().on_header(name, value)
        self._parsed += len(name) + len(value)

    def on_headers_complete(self) -> None:
        """The head is whole: the request starts unless it is too large."""
        self._in_head = False
        if len(self.pipeline) >= MAX_PIPELINED:
            # Each waits as objects a hundred times the size of its bytes.
            self._refused = True
            self.transport.abort()
        elif self._parsed + len(self.url) > MAX_HEAD_BYTES:
            self._refuse()
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._stop_timer()
        if not self._refused:
            super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._refused:
            return
        super().data_received(data)
        # A header that never ends is not told by the parser, so its bytes are counted here.
        if self._in_head and not self._refused:
            self._received += len(data)
            if self._received > MAX_HEAD_BYTES:
                self._refuse()

    def _refuse(self) -> None:
        self._refused = True
        body = b'{"reason":"INVALID_REQUEST","message":"the request\'s head is too large"}'
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
            b"content-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(REQUEST_SECONDS, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
