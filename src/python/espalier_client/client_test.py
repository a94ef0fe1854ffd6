"""What a client gets from a real server."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from espalier.serving.testing import ENTITIES, FEATURES, STALE, TYPES, expected_score
from espalier.serving.testing_server import serving
from espalier_client import (
    Client,
    EntityStatus,
    EntityUnknown,
    Feature,
    InvalidRequest,
    ModelUnknown,
    ScoreSource,
)


@pytest.fixture(scope="module")
def client(server):
    with Client(server.grpc_address, timeout=30) as client:
        yield client


def test_a_prediction_is_a_plain_value(client):
    found = client.predict("u0200")
    assert found.score == pytest.approx(expected_score("u0200", 0.01), abs=1e-6)
    assert (found.entity_id, found.prediction) == ("u0200", 1)
    assert (found.model, found.version) == ("churn", "1")
    assert (found.status, found.source) == (EntityStatus.OK, ScoreSource.MODEL)
    assert found.feature_time == datetime(1998, 6, 30, tzinfo=UTC)
    assert (found.label, found.probabilities) == ("", ())


def test_an_unknown_entity_is_an_error_with_its_reason(client):
    with pytest.raises(EntityUnknown, match="nobody") as caught:
        client.predict("nobody")
    assert (caught.value.reason, caught.value.code) == ("ENTITY_UNKNOWN", "NOT_FOUND")
    assert caught.value.metadata["entity_id"] == "nobody"
    assert caught.value.request_id
    assert caught.value.fix
    assert caught.value.message
    assert caught.value.fix not in caught.value.message


def test_an_unknown_model_and_a_wrong_key_are_errors_of_their_own(server, client):
    with Client(server.grpc_address, model="fraud") as other, pytest.raises(ModelUnknown) as caught:
        other.predict("u0001")
    assert "churn" in caught.value.fix
    with pytest.raises(InvalidRequest):
        client.predict("")


def test_any_number_of_entities_come_in_their_order(client):
    asked = [ENTITIES[n % 300] if n % 7 else "nobody" for n in range(25_000)]
    found = list(client.predict_many(iter(asked)))
    assert [p.entity_id for p in found] == asked
    assert all((p.status == "UNKNOWN_ENTITY") == (p.entity_id == "nobody") for p in found)
    assert list(client.predict_many([])) == []


def test_chunks_are_asked_for_only_as_they_are_wanted(client):
    read = []

    def keys():
        for key in ENTITIES:
            read.append(key)
            yield key

    found = client.predict_many(keys(), chunk=10)
    assert next(found).entity_id == ENTITIES[0]
    assert len(read) == 10
    assert [p.entity_id for p in found] == list(ENTITIES[1:])


def test_a_server_with_a_lower_limit_says_what_chunk_it_takes(dsn, registry, tmp_path):
    with (
        serving(dsn, registry.uri, tmp_path, "--max-entities", "100") as running,
        Client(running.grpc_address, timeout=30) as client,
    ):
        running.until(running.is_ready)
        with pytest.raises(InvalidRequest) as caught:
            list(client.predict_many(ENTITIES))
        assert caught.value.message == "300 entities in one request"
        assert caught.value.fix == "ask for at most 100"
        found = client.predict_many(ENTITIES, chunk=100)
        assert [p.entity_id for p in found] == list(ENTITIES)


def test_a_stream_answers_in_order_and_before_all_is_sent(client):
    answered = threading.Event()

    def keys():
        yield "u0001"
        assert answered.wait(30)
        yield from ("nobody", STALE, "u0002")

    stream = client.stream(keys())
    assert next(stream).entity_id == "u0001"
    answered.set()
    assert [(p.entity_id, p.status.value) for p in stream] == [
        ("nobody", "UNKNOWN_ENTITY"),
        (STALE, "STALE_FEATURES"),
        ("u0002", "OK"),
    ]


def test_a_stream_of_many_keeps_their_order(client):
    asked = [ENTITIES[n % 300] for n in range(1000)]
    assert [p.entity_id for p in client.stream(asked)] == asked


def test_a_stream_ends_with_the_error_after_the_answers_before_it(client):
    stream = client.stream(["u0001", "u0002", "", "u0003"])
    assert [next(stream).entity_id, next(stream).entity_id] == ["u0001", "u0002"]
    with pytest.raises(InvalidRequest):
        next(stream)


def test_a_stream_that_is_left_is_ended_at_the_server(server, client):
    stream = client.stream(ENTITIES[n % 300] for n in range(100_000))
    next(stream)
    stream.close()
    server.until(lambda: server.metric('espalier_requests_in_flight{transport="grpc"}') == 0)


def test_the_model_is_described(client):
    found = client.get_model()
    assert (found.name, found.version, found.threshold) == ("churn", "1", 0.5)
    assert found.features == tuple(map(Feature, FEATURES, TYPES))
    assert found.metrics == {"roc_auc": 0.75}
    assert found.provenance == {"slope": "0.01"}
    assert found.classes == ()


def test_threads_share_a_client(client):
    found = {}

    def ask(key):
        found[key] = client.predict(key).score

    threads = [threading.Thread(target=ask, args=(key,)) for key in ENTITIES[:32]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {
        key: pytest.approx(expected_score(key, 0.01), abs=1e-6) for key in ENTITIES[:32]
    }
