"""MLflow's REST API as its client's connections have it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from espalier.registry.rest import MlflowRest

# After so long without a request uvicorn, which MLflow runs on, closes a connection.
SERVER_CLOSES_SECONDS = 5.0


class Answers(BaseHTTPRequestHandler):
    """Answers as MLflow does to who asks for a model without aliases; knows its connections."""

    protocol_version = "HTTP/1.1"
    connections: ClassVar[list[object]]

    def setup(self) -> None:
        super().setup()
        self.connections.append(self.client_address)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_arguments: object) -> None:
        """Tell nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, list[object]]]:
    class Handler(Answers):
        connections: ClassVar[list[object]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{found.server_port}", Handler.connections
        finally:
            found.shutdown()
            thread.join()


def test_a_connection_is_left_well_before_the_server_closes_it(server, monkeypatch) -> None:
    address, connections = server
    now = time.monotonic
    with MlflowRest(address) as mlflow:
        mlflow.aliases("churn")
        mlflow.aliases("churn")
        assert len(connections) == 1
        monkeypatch.setattr(time, "monotonic", lambda: now() + SERVER_CLOSES_SECONDS / 2)
        mlflow.aliases("churn")
        assert len(connections) == 2
