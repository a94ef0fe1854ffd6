"""Bounds on connections, on real sockets; what a whole server does with them is in access_test.py."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress

import pytest

from espalier.serving import http_protocol, http_server
from espalier.serving.http_protocol import HEADER_BYTES, MAX_HEAD_BYTES, MAX_PIPELINED
from espalier.serving.http_server import HttpServer
from espalier.serving.listeners import bound

HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"
REQUEST = HEAD + b"body"


@asynccontextmanager
async def listening(*, gate=None, answer=None, max_connections=100):
    """A server that answers each request with `answer` or its body, when `gate` is open.

    Gives it and its port.
    """

    async def app(scope, receive, send):
        message = {"more_body": True}
        body = b""
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        if gate is not None:
            await gate.wait()
        body = answer or body
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    with bound("127.0.0.1", 0, "HTTP") as listener:
        port = listener.getsockname()[1]
        server = HttpServer(app, max_connections=max_connections)
        await server.start(listener)
        try:
            yield server, port
        finally:
            if not server.stopped:
                await server.stop(0.2)


@asynccontextmanager
async def connection_to(port):
    # A small buffer, so that one end notices soon that the other one does not read.
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def connected(gate=None):
    async with listening(gate=gate) as (_, port), connection_to(port) as pair:
        yield pair


@pytest.fixture
def quick(monkeypatch):
    """Let clients have no more than a moment."""
    monkeypatch.setattr(http_server, "_CHECK_SECONDS", 0.02)
    monkeypatch.setattr(http_protocol, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(http_protocol, "ANSWER_SECONDS", 0.2)


def run(body):
    async def within():
        async with asyncio.timeout(20):
            return await body()

    return asyncio.run(within())


@pytest.mark.parametrize(
    "sent",
    [b"", b"\r\n", b"POST / HT", HEAD, HEAD + b"hal", REQUEST + b"\r\n", REQUEST + b"POST / HT"],
)
def test_a_request_that_does_not_come_whole_is_left(sent, quick):
    async def body():
        async with connected() as (reader, writer):
            if sent.startswith(REQUEST):
                writer.write(REQUEST)
                await reader.readuntil(b"body")
                writer.write(sent.removeprefix(REQUEST))
            else:
                writer.write(sent)
            assert await reader.read() == b""

    run(body)


def test_an_answer_that_takes_longer_than_a_request_may_is_given(quick):
    async def body():
        gate = asyncio.Event()
        async with connected(gate) as (reader, writer):
            writer.write(REQUEST)
            # Other ones are left meanwhile, by the same clock.
            async with connection_to(writer.get_extra_info("peername")[1]) as (other, _):
                assert await other.read() == b""
            writer.write(b"\r\n")
            gate.set()
            assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200 OK")

    run(body)


@pytest.mark.parametrize("last", [b"", b"connection: close\r\n"])
def test_a_client_that_does_not_read_is_left(last, quick):
    async def body():
        request = REQUEST.replace(b"host", last + b"host")
        async with listening(answer=bytes(8 * 2**20)) as (server, port):
            # It never reads more than its buffers take.
            async with connection_to(port) as (reader, writer):
                writer.write(request)
                await reader.readuntil(b"200 OK")
                while server.connections:  # noqa: ASYNC110  # no event tells
                    await asyncio.sleep(0.01)
            async with connection_to(port) as (reader, writer):
                writer.write(request)
                assert len(await reader.readuntil(bytes(100))) < 1000

    run(body)


def test_a_client_that_reads_slowly_and_goes_on_is_served(quick):
    async def body():
        async with listening(answer=bytes(200_000)) as (_, port), connection_to(port) as pair:
            reader, writer = pair
            for _ in range(40):
                writer.write(REQUEST)
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(0.02)
                await reader.readexactly(200_000)

    run(body)


def test_connections_beyond_their_number_are_told(quick):
    async def body():
        async with listening(max_connections=2) as (_, port):
            async with connection_to(port) as one, connection_to(port) as two:
                for reader, writer in (one, two):
                    writer.write(REQUEST)
                    await reader.readuntil(b"body")
                async with connection_to(port) as (reader, _):
                    assert (await reader.read()).startswith(b"HTTP/1.1 503")
            async with connection_to(port) as (reader, writer):
                writer.write(REQUEST)
                await reader.readuntil(b"body")

    run(body)


def test_what_is_no_request_is_told_in_json():
    async def body():
        async with connected() as (reader, writer):
            writer.write(REQUEST + b"nonsense\r\n\r\n")
            # After the answer to what came before.
            assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200 OK")
        async with connected() as (reader, writer):
            writer.write(b"nonsense\r\n\r\n")
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["reason"] == "INVALID_REQUEST"

    run(body)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"x" * 20_000,
        b"GET / HTTP/1.1\r\nx: " + b"x" * 20_000,
        b"GET / HTTP/1.1\r\n" + b"x:\r\n" * (MAX_HEAD_BYTES // HEADER_BYTES),
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"x" * 20_000,
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: " + b"x" * 20_000,
    ],
)
def test_what_has_no_end_is_too_large(sent):
    async def body():
        async with connected() as (reader, writer):
            writer.write(sent[:200])
            for _ in range(5):
                await asyncio.sleep(0)
            # At once: what comes after the refusal is answered by a reset.
            writer.write(sent[200:])
            assert (await reader.readuntil(b"large")).startswith(b"HTTP/1.1 431")

    run(body)


def test_many_small_requests_at_once_are_no_large_one():
    async def body():
        request = REQUEST.replace(b"host", b"x-padding: " + b"x" * 2000 + b"\r\nhost")
        async with connected() as (reader, writer):
            writer.write(request * 12 + request[:500])
            for _ in range(12):
                assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200 OK")
            writer.write(request[500:])
            assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200 OK")

    run(body)


def test_draining_ends_connections_by_their_answers_and_takes_who_has_come():
    async def body():
        gate = asyncio.Event()
        async with listening(gate=gate) as (server, port), connection_to(port) as (reader, writer):
            writer.write(REQUEST)
            while not server.connections:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0)
            server.drain()
            # Connected and not accepted yet when the server stops.
            async with connection_to(port) as (late, late_writer), connection_to(port) as (idle, _):
                late_writer.write(REQUEST)
                stopping = asyncio.create_task(server.stop(0.5))
                gate.set()
                for answers in (reader, late):
                    answer = await answers.read()
                    assert answer.startswith(b"HTTP/1.1 200 OK")
                    assert b"connection: close" in answer
                    assert answer.endswith(b"body")
                # It sent nothing, and is waited for until the end.
                assert await idle.read() == b""
                await stopping
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)

    run(body)


def test_a_head_in_many_parts_counts_as_one():
    async def body():
        async with connected() as (reader, writer):
            # Just below the limit, whole and in parts, and then above it.
            for size in (MAX_HEAD_BYTES - 200, MAX_HEAD_BYTES - 200, MAX_HEAD_BYTES + 200):
                head = HEAD[:-2] + b"x-long: " + b"x" * size + b"\r\n\r\n"
                for start in range(0, len(head), 1000):
                    writer.write(head[start : start + 1000])
                    await writer.drain()
                    await asyncio.sleep(0)
                if size < MAX_HEAD_BYTES:
                    writer.write(b"body")
                    assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200 OK")
            assert (await reader.read()).startswith(b"HTTP/1.1 431")

    run(body)


def test_requests_without_end_before_an_answer_end_the_connection():
    async def body():
        gate = asyncio.Event()
        async with connected(gate) as (reader, writer):
            writer.write((HEAD + b"body") * (MAX_PIPELINED // 2))
            gate.set()
            for _ in range(MAX_PIPELINED // 2):
                assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200 OK")
            gate.clear()
            writer.write((HEAD + b"body") * (MAX_PIPELINED + 2))
            # A reset is the same, as the system tells it.
            with suppress(ConnectionResetError):
                assert await reader.read() == b""

    run(body)
