"""Tokens, rates and limits; against a real server where one is needed."""

from __future__ import annotations

import socket

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from espalier.errors import RateLimited
from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.serving.access import Access
from espalier.serving.caller import Caller
from espalier.serving.http_protocol import MAX_HEAD_BYTES
from espalier.serving.testing_server import error_info, serving
from espalier.serving.tokens import new_token

REQUEST = pb.PredictRequest(entity_id="u0001")
ONE, TWO = Caller("1", "one"), Caller("2", "two")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_rate_is_for_each_token_and_comes_back_with_time():
    clock = Clock()
    access = Access(rate=10, clock=clock)
    for _ in range(10):
        access.spend(ONE, 1)
    with pytest.raises(RateLimited) as caught:
        access.spend(ONE, 1)
    assert caught.value.metadata == {"retry_seconds": "0.100"}
    access.spend(TWO, 1)
    clock.now = 0.1
    access.spend(ONE, 1)
    with pytest.raises(RateLimited):
        access.spend(ONE, 1)


def test_a_request_larger_than_the_rate_passes_and_the_next_waits_for_it():
    clock = Clock()
    access = Access(rate=10, clock=clock)
    access.spend(ONE, 110)
    with pytest.raises(RateLimited) as caught:
        access.spend(ONE, 1)
    assert float(caught.value.metadata["retry_seconds"]) == pytest.approx(10.1)
    clock.now = 10.1
    access.spend(ONE, 1)


def test_a_stream_is_told_how_long_to_wait():
    access = Access(rate=2, clock=Clock())
    assert [access.pause(ONE) for _ in range(4)] == [0, 0, 0.5, 1.0]


TOKENS = {name: new_token(name) for name in ("shop", "slow")}


@pytest.fixture(scope="module")
def guarded(dsn, registry, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "tokens").write_text("\n".join(line for _, line in TOKENS.values()))
    limits = ["--tokens", "tokens", "--rate", "50", "--max-entities", "60"]
    with serving(dsn, registry.uri, folder, *limits) as running:
        running.until(running.is_ready)
        yield running
        # What was sent and refused stands in no log line.
        text = running.log.read_text()
        assert not any(token in text for token, _ in TOKENS.values())


def bearer(name):
    return (("authorization", f"Bearer {TOKENS[name][0]}"),)


def refused(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_grpc_wants_a_token(guarded):
    assert guarded.stub.Predict(REQUEST, timeout=5, metadata=bearer("shop")).entity_id == "u0001"
    for metadata in (None, (("authorization", "Bearer wrong"),)):
        error = refused(lambda m=metadata: guarded.stub.Predict(REQUEST, timeout=5, metadata=m))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert error_info(error).reason == "UNAUTHENTICATED"
        stream = guarded.stub.StreamPredict(
            iter([pb.StreamPredictRequest(entity_id="u0001")]), timeout=5, metadata=metadata
        )
        assert refused(lambda s=stream: list(s)).code() is grpc.StatusCode.UNAUTHENTICATED


def test_http_wants_a_token(guarded):
    body = {"user_id": "u0001"}
    answer = guarded.http.post("/predict", json=body)
    assert (answer.status_code, answer.json()["reason"]) == (401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.http.post("/models/churn/predict", json=body).status_code == 401
    for path in ("/metrics", "/models", "/models/churn", "/models/churn/ready", "/no/such/path"):
        assert guarded.http.get(path).status_code == 401
    headers = dict(bearer("shop"))
    assert guarded.http.post("/predict", json=body, headers=headers).status_code == 200
    assert b"espalier_ready" in guarded.http.get("/metrics", headers=headers).content


def test_probes_and_descriptions_stay_open_and_tell_little(guarded):
    assert guarded.http.get("/health").status_code == 200
    assert guarded.http.get("/ready").json() == {"ready": True}
    whole = guarded.http.get("/ready", headers=dict(bearer("shop"))).json()
    assert whole == {"ready": True, "missing": []}
    assert guarded.http.get("/openapi.json").status_code == 200
    health = health_pb2_grpc.HealthStub(guarded.channel)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status
    reflection = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)
    (answer,) = reflection.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5
    )
    assert answer.list_services_response.service


def test_a_token_beyond_its_rate_is_told_when_to_come_again(guarded):
    asked = pb.BatchPredictRequest(entity_ids=["u0001"] * 60)

    def exhausted():
        for _ in range(100):
            guarded.stub.BatchPredict(asked, timeout=5, metadata=bearer("slow"))

    last = refused(exhausted)
    assert last.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error_info(last).reason == "RATE_LIMITED"
    retry = error_details_pb2.RetryInfo()
    assert rpc_status.from_call(last).details[1].Unpack(retry)
    assert 0 < retry.retry_delay.ToTimedelta().total_seconds() < 2
    for _ in range(100):
        body = {"user_id": "u0001"}
        answer = guarded.http.post("/predict", json=body, headers=dict(bearer("slow")))
        if answer.status_code != 200:
            break
    assert (answer.status_code, answer.json()["reason"]) == (429, "RATE_LIMITED")
    assert int(answer.headers["retry-after"]) >= 1
    # Another token is not held back.
    assert guarded.stub.Predict(REQUEST, timeout=5, metadata=bearer("shop")).status


def test_too_large_is_refused_on_both_transports(guarded):
    asked = pb.BatchPredictRequest(entity_ids=["u0001"] * 61)
    call = lambda: guarded.stub.BatchPredict(asked, timeout=5, metadata=bearer("shop"))  # noqa: E731
    guarded.until(lambda: refused(call).code() is grpc.StatusCode.INVALID_ARGUMENT)
    large = pb.BatchPredictRequest(entity_ids=["x" * 256] * 70_000)
    error = refused(lambda: guarded.stub.BatchPredict(large, timeout=20, metadata=bearer("shop")))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    metadata = (*bearer("shop"), ("x-large", "x" * 40_000))
    error = refused(lambda: guarded.stub.Predict(REQUEST, timeout=5, metadata=metadata))
    assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    answer = guarded.http.get("/health", headers={"x-large": "x" * MAX_HEAD_BYTES})
    assert answer.status_code == 431
    assert guarded.http.get("/health", headers={"x-large": "x" * 8_000}).status_code == 200


def test_a_header_without_an_end_is_cut_off(guarded):
    url = httpx.URL(str(guarded.http.base_url))
    with socket.create_connection((url.host, url.port), timeout=5) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nx-long: ")
        received = b""
        try:
            for _ in range(1000):
                connection.sendall(b"x" * 1000)
            received = connection.recv(1000)
        except ConnectionError:
            return
    assert received == b"" or received.startswith(b"HTTP/1.1 431")


def test_tokens_that_are_taken_back_replaced_or_expired(dsn, registry, tmp_path):
    """Each change of the file is in force a second later; nobody else is held up."""
    (old, old_line), (new, new_line), (late, late_line) = (new_token(n) for n in ("a", "a", "late"))
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{old_line}\n{late_line} 1998-01-01\n")
    with serving(dsn, registry.uri, tmp_path, "--tokens", "tokens") as running:
        running.until(running.is_ready)

        def codes(token):
            header = f"Bearer {token}"
            answer = running.http.post(
                "/predict", json={"user_id": "u0001"}, headers={b"authorization": header.encode()}
            )
            try:
                running.stub.Predict(REQUEST, timeout=5, metadata=(("authorization", header),))
            except grpc.RpcError as error:
                return error.code().name, answer.status_code
            return "OK", answer.status_code

        served, refused = ("OK", 200), ("UNAUTHENTICATED", 401)
        assert codes(old) == served
        for wrong in (new, late, old[:-1], old + "x", "x", "x" * 8000, old.upper(), f"{old},{old}"):
            assert codes(wrong) == refused, wrong
        tokens.write_text(f"{old_line}\n{new_line}\n")
        running.until(lambda: codes(new) == served)
        assert codes(old) == served
        tokens.write_text("a line that is none\n")
        told = "tokens not renewed"
        running.until(lambda: codes(new) == served and told in running.log.read_text())
        tokens.write_text(f"{new_line}\n")
        running.until(lambda: codes(old) == refused)
        assert codes(new) == served
        text = running.log.read_text()
        assert not any(token in text for token in (old, new, late))
