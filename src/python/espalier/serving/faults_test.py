"""Faults from outside against a real server: what was served, refused and lost is counted."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import threading
import time
from collections import Counter

import grpc
import psycopg
import pytest
from google.protobuf.message import Message

from espalier.postgres import embedded
from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from espalier.serving.testing import ENTITIES, create_online_table, expected_score
from espalier.serving.testing_server import SERVICE, error_info, serving
from inference import open_inference_pb2 as oip

REQUEST = pb.PredictRequest(entity_id="u0001")


@pytest.fixture
def running(dsn, registry, tmp_path):
    """A server of the test's own, which predicts as ever when the test has ended."""
    with serving(dsn, registry.uri, tmp_path) as running:
        running.until(running.is_ready)
        yield running
        answer = running.stub.Predict(REQUEST, timeout=10)
        assert answer.score == pytest.approx(expected_score("u0001", 0.01), abs=1e-6)
        running.until(lambda: running.metric('espalier_requests_in_flight{transport="grpc"}') == 0)
        assert running.process.poll() is None


def events(running):
    return [json.loads(line)["event"] for line in running.log.read_text().splitlines()]


def http_address(running):
    url = running.http.base_url
    return url.host, url.port


def mutated(chance, valid):
    data = bytearray(chance.choice(valid))
    for _ in range(chance.randint(0, 8)):
        place = chance.randint(0, len(data))
        kind = chance.randint(0, 2)
        if kind == 0:
            data[place:place] = chance.randbytes(chance.randint(1, 8))
        elif kind == 1:
            del data[place : place + chance.randint(1, 4)]
        elif place < len(data):
            data[place] = chance.randint(0, 255)
    return bytes(data)


def test_malformed_messages_are_answered_and_end_nothing(running):
    chance = random.Random(6)
    tensor = {"name": "features", "datatype": "FP64", "shape": [1, 11]}
    valid: dict[str, list[Message]] = {
        f"/{SERVICE}/Predict": [REQUEST, pb.PredictRequest(model="churn", entity_id="ž" * 50)],
        f"/{SERVICE}/BatchPredict": [pb.BatchPredictRequest(entity_ids=ENTITIES[:20])],
        "/inference.GRPCInferenceService/ModelInfer": [
            oip.ModelInferRequest(
                model_name="churn", inputs=[tensor], raw_input_contents=[bytes(88)]
            ),
            oip.ModelInferRequest(
                inputs=[{**tensor, "contents": {"fp64_contents": [0.5] * 11}}], id="x"
            ),
        ],
    }
    codes: Counter[str] = Counter()
    told = set()
    for _ in range(3000):
        method = chance.choice(list(valid))
        data = mutated(chance, [message.SerializeToString() for message in valid[method]])
        try:
            running.channel.unary_unary(method)(data, timeout=10)
            codes["OK"] += 1
        except grpc.RpcError as error:
            codes[error.code().name] += 1
            told.add(str(error.details()))
    assert not any("Traceback" in text or "google.protobuf" in text for text in told)
    # INTERNAL is said of a NaN among the features.
    assert set(codes) <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL"}, codes
    assert len(codes) >= 3
    assert codes["INVALID_ARGUMENT"] > 1000
    stream = running.channel.stream_stream(f"/{SERVICE}/StreamPredict")
    call = stream(iter([pb.StreamPredictRequest(entity_id="u0001").SerializeToString(), b"\xff"]))
    assert pb.StreamPredictResponse.FromString(next(call)).prediction.entity_id == "u0001"
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_info(caught.value).reason == "INVALID_REQUEST"
    assert "unexpected error" not in events(running)


def test_bytes_that_are_no_http_and_no_grpc_end_nothing(running):
    chance = random.Random(7)
    body = b'{"user_id": "u0001"}'
    valid = [
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body),
        b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    ]
    grpc_host, _, grpc_port = running.grpc_address.rpartition(":")
    for number in range(600):
        address = http_address(running) if number % 2 else (grpc_host, int(grpc_port))
        with socket.create_connection(address, timeout=5) as connection:
            try:
                connection.sendall(mutated(chance, valid))
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(0.05)
                while connection.recv(65_536):
                    pass
            except OSError:
                continue
    assert "unexpected error" not in events(running)


def test_callers_that_cancel_half_of_their_calls_cost_the_others_nothing(running):
    async def body():
        counts: Counter[str] = Counter()
        async with grpc.aio.insecure_channel(running.grpc_address) as channel:
            stub = pb_grpc.PredictionServiceStub(channel)

            async def one(number):
                entity = ENTITIES[number % len(ENTITIES)]
                call = stub.Predict(pb.PredictRequest(entity_id=entity), timeout=30)
                if number % 2:
                    await asyncio.sleep((number % 7) / 1000)
                    call.cancel()
                try:
                    answer = await call
                except asyncio.CancelledError:
                    counts["cancelled"] += 1
                else:
                    assert answer.entity_id == entity
                    assert answer.score == pytest.approx(expected_score(entity, 0.01), abs=1e-6)
                    counts["own" if number % 2 else "served"] += 1

            for start in range(0, 2000, 100):
                await asyncio.gather(*(one(start + number) for number in range(100)))
        return counts

    counts = asyncio.run(body())
    assert counts["served"] == 1000
    assert counts["cancelled"] > 100


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123  # a virtual file
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_clients_that_never_read_hold_nobody_up_and_little_memory(running):
    pid = running.process.pid
    for _ in range(50):
        running.stub.Predict(REQUEST, timeout=10)
    before = resident_bytes(pid)
    request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 50
    silent = [socket.create_connection(http_address(running), timeout=5) for _ in range(10)]
    calls = [
        running.stub.StreamPredict(
            (pb.StreamPredictRequest(entity_id=ENTITIES[n % 300]) for n in range(100_000)),
            timeout=60,
        )
        for _ in range(5)
    ]
    try:
        for connection in silent:
            connection.settimeout(0.2)
            try:
                for _ in range(100):
                    connection.sendall(request)
            except TimeoutError:
                continue
        for _ in range(100):
            assert running.stub.Predict(REQUEST, timeout=10).status == pb.ENTITY_STATUS_OK
        assert resident_bytes(pid) - before < 64 * 2**20
    finally:
        for call in calls:
            call.cancel()
        for connection in silent:
            connection.close()


def test_a_database_that_hangs_refuses_in_time_and_is_used_when_it_goes_on(running, dsn):
    table = "online.churn_customer_monthly"
    with psycopg.connect(dsn) as blocker:
        blocker.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        counts: Counter[str] = Counter()
        lock = threading.Lock()

        def call():
            for _ in range(3):
                began = time.monotonic()
                try:
                    running.stub.Predict(REQUEST, timeout=1)
                except grpc.RpcError as error:
                    with lock:
                        counts[error.code().name] += 1
                assert time.monotonic() - began < 5

        threads = [threading.Thread(target=call) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(counts.values()) == 60
        assert set(counts) <= {"DEADLINE_EXCEEDED", "UNAVAILABLE"}
        running.until(lambda: not running.is_ready())
        blocker.rollback()
    running.until(running.is_ready)


def test_a_log_that_cannot_be_written_costs_no_prediction(registry, tmp_path):
    with embedded.temporary() as database:
        create_online_table(database.dsn())
        with serving(database.dsn(), registry.uri, tmp_path) as running:
            running.until(running.is_ready)
            with psycopg.connect(database.dsn(), autocommit=True) as admin:
                # As a full disk does, it refuses every write.
                admin.execute("ALTER TABLE espalier.predictions ADD CHECK (false) NOT VALID")
                for _ in range(100):
                    assert running.stub.Predict(REQUEST, timeout=10).status
                running.until(lambda: "predictions wait to be logged" in events(running))
                assert running.is_ready()
                admin.execute("ALTER TABLE espalier.predictions DROP CONSTRAINT predictions_check")
                running.until(
                    lambda: (running.metric("espalier_predictions_logged_total") or 0) > 0
                )
                assert running.metric("espalier_predictions_not_logged_total") == 0
