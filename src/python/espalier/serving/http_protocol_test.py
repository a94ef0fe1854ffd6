"""Bounds on requests, on real sockets; what a whole server does with them is in access_test.py."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from uvicorn.server import ServerState

from espalier.serving import http_protocol
from espalier.serving.http_protocol import MAX_HEAD_BYTES, MAX_PIPELINED, BoundedProtocol

HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"


@asynccontextmanager
async def connected(gate=None):
    """A connection to a server that answers each request with its body, when `gate` is open."""

    async def app(scope, receive, send):
        message = {"more_body": True}
        body = b""
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        if gate is not None:
            await gate.wait()
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            yield reader, writer
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def run(body):
    async def within():
        async with asyncio.timeout(20):
            return await body()

    return asyncio.run(within())


@pytest.mark.parametrize("sent", [b"", b"POST / HT", HEAD, HEAD + b"hal"])
def test_a_request_that_does_not_come_whole_is_left(sent, monkeypatch):
    monkeypatch.setattr(http_protocol, "REQUEST_SECONDS", 0.2)

    async def body():
        async with connected() as (reader, writer):
            writer.write(sent)
            assert await reader.read() == b""

    run(body)


def test_an_answer_that_takes_longer_than_a_request_may_is_given(monkeypatch):
    monkeypatch.setattr(http_protocol, "REQUEST_SECONDS", 0.1)

    async def body():
        gate = asyncio.Event()
        async with connected(gate) as (reader, writer):
            writer.write(HEAD + b"body")
            await asyncio.sleep(0.3)
            gate.set()
            assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200 OK")

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
