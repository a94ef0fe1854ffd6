"""The client for asyncio, against a real server."""

from __future__ import annotations

import asyncio
import signal

import pytest

from espalier.serving.testing import ENTITIES, expected_score
from espalier.serving.testing_server import serving
from espalier.testing_web import NOBODY
from espalier_client import (
    AsyncClient,
    DeadlineExceeded,
    EntityUnknown,
    InvalidRequest,
    Retry,
    Unavailable,
)


def with_client(server, use, **options):
    async def run():
        async with AsyncClient(server.grpc_address, **{"timeout": 30, **options}) as client:
            return await use(client)

    return asyncio.run(run())


def test_many_calls_at_once(server):
    async def use(client):
        return await asyncio.gather(*map(client.predict, ENTITIES))

    found = with_client(server, use)
    assert [p.score for p in found] == [
        pytest.approx(expected_score(key, 0.01), abs=1e-6) for key in ENTITIES
    ]


def test_chunks_come_in_order_and_the_model_is_described(server):
    async def use(client):
        model = await client.get_model()
        return model, [p async for p in client.predict_many(ENTITIES, chunk=70)]

    model, found = with_client(server, use)
    assert model.version == "1"
    assert [p.entity_id for p in found] == list(ENTITIES)


def test_a_stream_answers_in_order_and_before_all_is_sent(server):
    async def use(client):
        answered = asyncio.Event()

        async def keys():
            yield "u0001"
            await answered.wait()
            for key in ENTITIES:
                yield key

        found = []
        async for prediction in client.stream(keys()):
            answered.set()
            found.append(prediction.entity_id)
        return found

    assert with_client(server, use) == ["u0001", *ENTITIES]


def test_errors_are_those_of_the_other_client(server):
    async def use(client):
        with pytest.raises(EntityUnknown) as caught:
            await client.predict("nobody")
        assert caught.value.metadata["entity_id"] == "nobody"

        async def keys():
            yield ""

        with pytest.raises(InvalidRequest):
            [p async for p in client.stream(keys())]

    with_client(server, use)


def test_an_answer_that_does_not_come_is_told_in_time(server):
    async def use(client):
        with pytest.raises(DeadlineExceeded):
            await client.predict("u0001")

    server.process.send_signal(signal.SIGSTOP)
    try:
        with_client(server, use, timeout=0.3)
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_a_caller_over_its_rate_comes_again_when_the_server_says(dsn, registry, tmp_path):
    async def use(client):
        return [p.entity_id async for p in client.predict_many(ENTITIES, chunk=100)]

    with serving(dsn, registry.uri, tmp_path, "--rate", "100") as running:
        running.until(running.is_ready)
        assert with_client(running, use, timeout=60) == list(ENTITIES)
        name = 'espalier_requests_total{code="RESOURCE_EXHAUSTED",method="BatchPredict",'
        assert (running.metric(name + 'transport="grpc"}') or 0) >= 1


def test_a_server_that_is_away_is_told():
    async def use(client):
        with pytest.raises(Unavailable):
            await client.predict("u0001")

    class Nobody:
        grpc_address = NOBODY

    with_client(Nobody, use, retry=Retry(first_seconds=0.01, longest_seconds=0.02))
