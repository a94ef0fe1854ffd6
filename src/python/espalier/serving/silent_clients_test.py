"""Clients that never read, or send what they send too slowly: they are left, others are served."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time

import grpc
import pytest

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from espalier.serving.http_protocol import ANSWER_SECONDS, REQUEST_SECONDS
from espalier.serving.testing import ENTITIES
from espalier.serving.testing_load import under_load
from espalier.serving.testing_server import serving
from espalier.serving.testing_wire import PREFACE, call_frames, frame, resident_bytes

HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
# The longest wait for a client, the server's clock of a second, and a busy machine.
_PATIENCE_SECONDS = max(ANSWER_SECONDS, REQUEST_SECONDS) + 10


@pytest.fixture
def running(dsn, registry, tmp_path):
    with serving(dsn, registry.uri, tmp_path) as running:
        running.until(running.is_ready)
        yield running
        assert '"trace"' not in running.log.read_text()


def http_address(running):
    url = running.http.base_url
    return url.host, url.port


def grpc_address(running):
    host, _, port = running.grpc_address.rpartition(":")
    return host, int(port)


def fill(connection, request):
    """Send `request` until the other end takes no more; it must in the end."""
    connection.settimeout(1)
    try:
        for _ in range(100_000):
            connection.sendall(request)
    except TimeoutError:
        return
    except ConnectionError:
        return
    raise AssertionError("the server takes requests without end")


def trickle(connection, data, over):
    """Send `data` over and over, a byte each half second, until the connection ends or `over`."""
    at = 0
    while not over.wait(0.5):
        try:
            connection.send(data[at % len(data) :][:1])
        except OSError:
            return
        at += 1


def has_ended(connection):
    """Whether the other end closed it; what it sent stays unread."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def test_http_clients_that_never_read_or_never_end_are_left(running):
    """All at once, each in its way; meanwhile everybody else is served."""
    ways = {
        "reads no answers": b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 50,
        "sends a head without end": HEAD + b"x-slow: ",
        "sends a body without end": HEAD + b"content-length: 100\r\n\r\n{",
        "sends chunks without end": HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
        "sends nothing": b"",
        "sends empty lines": b"\r\n",
    }
    over = threading.Event()
    connections, threads = {}, []
    before = resident_bytes(running.process.pid)
    try:
        for way, sent in ways.items():
            for number in range(5):
                connection = socket.create_connection(http_address(running), timeout=5)
                connections[way, number] = connection
                if way == "reads no answers":
                    call = threading.Thread(target=fill, args=(connection, sent))
                else:
                    connection.sendall(sent)
                    rest = {"sends nothing": b"", "sends chunks without end": b"1\r\n \r\n"}
                    data = rest.get(way, b"\r\n" if way == "sends empty lines" else b"x")
                    if not data:
                        continue
                    call = threading.Thread(target=trickle, args=(connection, data, over))
                call.start()
                threads.append(call)
        began = time.monotonic()
        with under_load(running, grpc_callers=2, batch_callers=1, http_callers=2) as load:
            load.until_served(50)
            load.until(lambda: all(map(has_ended, connections.values())), seconds=_PATIENCE_SECONDS)
            took = time.monotonic() - began
            assert resident_bytes(running.process.pid) - before < 64 * 2**20
            load.until_served(50)
        assert load.counts().lost == ()
        assert not load.counts().refused
        load.tell(f"{len(connections)} silent HTTP clients, left after {took:.0f} s")
    finally:
        over.set()
        for connection in connections.values():
            connection.close()
        for thread in threads:
            thread.join()


def test_grpc_clients_that_never_read_or_never_end_hold_nobody_up(running):
    """HTTP/2 whose window stays shut, and connections that never come to a call."""
    pid = running.process.pid
    # SETTINGS_INITIAL_WINDOW_SIZE: no byte of an answer may be sent.
    shut = PREFACE + frame(0x4, 0, 0, b"\x00\x04" + bytes(4))
    batch = pb.BatchPredictRequest(entity_ids=ENTITIES * 3).SerializeToString()
    path = b"/espalier.prediction.v1.PredictionService/BatchPredict"
    silent, mute = [], []
    with under_load(running, grpc_callers=2, batch_callers=1, http_callers=2) as load:
        load.until_served(50)
        before = resident_bytes(pid)
        try:
            for _ in range(5):
                connection = socket.create_connection(grpc_address(running), timeout=5)
                silent.append(connection)
                connection.sendall(shut)
                for number in range(20):
                    connection.sendall(call_frames(path, batch, stream=2 * number + 1))
            mute = [socket.create_connection(grpc_address(running), timeout=5) for _ in range(5)]
            answered = 'espalier_requests_total{code="OK",method="BatchPredict",transport="grpc"}'
            load.until(lambda: (running.metric(answered) or 0) >= 100)
            load.until_served(200)
            assert resident_bytes(pid) - before < 128 * 2**20
            # The others got nowhere: no first bytes came.
            load.until(lambda: all(map(has_ended, mute)), seconds=_PATIENCE_SECONDS)
        finally:
            for connection in [*silent, *mute]:
                connection.close()
        load.until_served(50)
    assert load.counts().lost == ()
    load.tell("gRPC clients that never read")
    running.until(lambda: running.metric('espalier_requests_in_flight{transport="grpc"}') == 0)


def test_streams_that_are_not_read_are_held_back_and_end_with_their_callers(running):
    pid = running.process.pid
    asked = 0

    def requests():
        nonlocal asked
        for asked in range(1_000_000):
            yield pb.StreamPredictRequest(entity_id=ENTITIES[asked % 300])

    with under_load(running, grpc_callers=2, batch_callers=1, http_callers=2) as load:
        load.until_served(50)
        before = resident_bytes(pid)
        calls = [running.stub.StreamPredict(requests(), timeout=120) for _ in range(5)]
        try:
            load.until_served(500, seconds=60)
            assert resident_bytes(pid) - before < 64 * 2**20
        finally:
            for call in calls:
                call.cancel()
        load.until_served(50)
    assert load.counts().lost == ()
    # Backpressure reached the senders.
    assert asked < 500_000
    load.tell("5 streams that are not read")
    running.until(lambda: running.metric('espalier_requests_in_flight{transport="grpc"}') == 0)


def test_callers_that_cancel_half_of_their_calls_cost_the_others_nothing(running):
    cancelled = served = 0

    async def body():
        nonlocal cancelled, served
        async with grpc.aio.insecure_channel(running.grpc_address) as channel:
            stub = pb_grpc.PredictionServiceStub(channel)

            async def one(number):
                nonlocal cancelled, served
                asked = pb.PredictRequest(entity_id=ENTITIES[number % 300])
                call = stub.Predict(asked, timeout=30)
                if number % 2:
                    await asyncio.sleep((number % 7) / 1000)
                    call.cancel()
                try:
                    answer = await call
                except asyncio.CancelledError:
                    cancelled += 1
                else:
                    assert answer.entity_id == asked.entity_id
                    served += not number % 2

            for start in range(0, 2000, 100):
                await asyncio.gather(*(one(start + number) for number in range(100)))

    with under_load(running) as load:
        load.until_served(50)
        asyncio.run(body())
        load.until_served(50)
    assert (served, load.counts().lost) == (1000, ())
    assert cancelled > 100
    load.tell(f"{cancelled} of 2,000 calls cancelled")
    running.until(lambda: running.metric('espalier_requests_in_flight{transport="grpc"}') == 0)
