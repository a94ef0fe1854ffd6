"""MLflow's REST API as its client's connections have it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from espalier.registry.rest import MlflowRest
from espalier.testing_web import Handler, web_server

# After so long without a request uvicorn, which MLflow runs on, closes a connection.
SERVER_CLOSES_SECONDS = 5.0


@pytest.fixture
def server() -> Iterator[tuple[str, list[object]]]:
    """A server that answers as MLflow does of a model without aliases, and its connections."""
    connections: list[object] = []

    class Counting(Handler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            connections.append(self.client_address)

        def answer(self) -> tuple[int, bytes]:
            return 200, b"{}"

    with web_server(Counting) as address:
        yield f"http://{address}", connections


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
