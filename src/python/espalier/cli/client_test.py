from __future__ import annotations

from concurrent import futures
from dataclasses import replace
from datetime import UTC, datetime

import grpc
import pytest

from espalier.cli.client import Prediction, predict
from espalier.errors import (
    ConfigurationError,
    DependencyUnreachable,
    EntityUnknown,
    EspalierError,
    UsageError,
)
from espalier.serving.testing import NULLED, STALE, expected_score
from espalier.serving.testing_server import Running
from espalier.testing_web import NOBODY


def test_a_known_entity_is_predicted(prediction_server: Running):
    answer = predict(prediction_server.grpc_address, "u0200", model="churn")
    assert answer.score == pytest.approx(expected_score("u0200", 0.01), abs=1e-6)
    assert answer == Prediction(
        entity_id="u0200",
        prediction=1.0,
        score=answer.score,
        version="1",
        status="OK",
        feature_time=datetime(1998, 6, 30, tzinfo=UTC),
    )


def test_old_features_are_told(prediction_server: Running):
    assert predict(prediction_server.grpc_address, STALE).status == "STALE_FEATURES"


@pytest.mark.parametrize(
    ("asked", "kind", "says"),
    [
        ({"entity_id": "nobody"}, EntityUnknown, "nobody"),
        ({"entity_id": "u0001", "model": "fraud"}, EntityUnknown, "fraud"),
        ({"entity_id": ""}, UsageError, "entity"),
        ({"entity_id": NULLED}, EspalierError, ""),
    ],
)
def test_what_the_server_refuses_is_an_error_of_that_kind(
    prediction_server: Running, asked, kind, says
):
    with pytest.raises(EspalierError) as error:
        predict(prediction_server.grpc_address, **asked)
    assert type(error.value) is kind
    assert str(error.value).startswith(f"{prediction_server.grpc_address}: ")
    assert says in str(error.value)
    assert "--address" not in str(error.value)


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({"prediction": 1.0, "score": 0.75}, "1  score 0.7500"),
        ({"prediction": 0.0, "score": 0.0}, "0  score 0.0000"),
        ({"prediction": 2.0, "score": 0.75, "label": "barbera"}, "barbera  probability 0.7500"),
        ({"prediction": 1013.25, "score": 1013.25}, "1013.25"),
    ],
)
def test_an_answer_is_told_by_what_is_predicted(told, line):
    answer = Prediction("u1", version="7", status="OK", feature_time=None, **told)
    assert answer.line() == f"{line}  model version 7"
    old = replace(answer, status="STALE_FEATURES", feature_time=datetime(1998, 6, 30, tzinfo=UTC))
    assert old.line() == f"{line}  model version 7  features of 1998-06-30 (stale features)"


def test_nothing_listening_is_unreachable():
    with pytest.raises(DependencyUnreachable, match=f"^{NOBODY}: .*Connection refused.*--address"):
        predict(NOBODY, "u0001")


@pytest.fixture
def another_server():
    """A gRPC server with no service, and one that never answers."""

    class Never(grpc.GenericRpcHandler):
        def service(self, _handler_call_details):
            return grpc.unary_unary_rpc_method_handler(lambda _request, _context: ended.result())

    ended: futures.Future[bytes] = futures.Future()
    with futures.ThreadPoolExecutor(2) as pool:
        servers = [grpc.server(pool), grpc.server(pool, handlers=[Never()])]
        ports = [server.add_insecure_port("127.0.0.1:0") for server in servers]
        for server in servers:
            server.start()
        yield [f"127.0.0.1:{port}" for port in ports]
        ended.set_result(b"")
        for server in servers:
            server.stop(None).wait()


def test_another_server_is_a_wrong_address(another_server):
    with pytest.raises(ConfigurationError, match="--address"):
        predict(another_server[0], "u0001")


def test_a_server_that_does_not_answer_in_time_is_unreachable(another_server):
    with pytest.raises(DependencyUnreachable, match="Deadline Exceeded"):
        predict(another_server[1], "u0001", timeout_seconds=0.2)
