"""Web servers of a test's own, on loopback, and an address where none is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# The port of a service that is no more. A free one can be another test's a moment later.
NOBODY = "127.0.0.1:1"


class Handler(BaseHTTPRequestHandler):
    """Gives to each GET what `answer` says, and writes nothing to standard error."""

    def answer(self) -> tuple[int, bytes]:
        """The status and the body for `self.path`."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """Send the whole answer."""
        status, body = self.answer()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextmanager
def web_server(handler: Callable[..., BaseHTTPRequestHandler], port: int = 0) -> Iterator[str]:
    """Serve by `handler` in a thread, on a free port by default; the server's `host:port`."""
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
