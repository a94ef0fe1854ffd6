"""What a client does when a server is away, slow, busy or guarded."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from espalier.processes import reserved_port
from espalier.serving.testing import ENTITIES, running_registry
from espalier.serving.testing_server import serving
from espalier.serving.testing_tls import authority
from espalier.serving.tokens import new_token
from espalier.testing_web import NOBODY
from espalier_client import (
    Client,
    DeadlineExceeded,
    Overloaded,
    Retry,
    ServerFault,
    Tls,
    Unauthenticated,
    Unavailable,
)

AT_ONCE = Retry(attempts=1)


def counted(running, code, method):
    name = f'espalier_requests_total{{code="{code}",method="{method}",transport="grpc"}}'
    return running.metric(name) or 0


def test_a_call_made_while_the_server_restarts_is_answered(dsn, registry, tmp_path):
    patient = Retry(first_seconds=2, longest_seconds=15)
    with reserved_port() as port:
        address = f"127.0.0.1:{port}"
        with Client(address, timeout=60, retry=patient) as client, ThreadPoolExecutor() as pool:
            with serving(dsn, registry.uri, tmp_path, "--grpc-address", address) as running:
                running.until(running.is_ready)
                before = client.predict("u0001")
            waiting = pool.submit(client.predict, "u0001")
            # Without retries nobody is there.
            with Client(address, retry=AT_ONCE) as other, pytest.raises(Unavailable):
                other.predict("u0001")
            with serving(dsn, registry.uri, tmp_path, "--grpc-address", address):
                assert waiting.result() == before


def test_a_server_that_is_not_ready_is_asked_as_often_as_wanted(dsn, tmp_path):
    quick = Retry(first_seconds=0.01, longest_seconds=0.02)
    with running_registry() as empty, serving(dsn, empty.uri, tmp_path) as running:
        running.until(running.ready_text)
        for retry, attempts in [(quick, 5), (AT_ONCE, 6)]:
            with (
                Client(running.grpc_address, timeout=30, retry=retry) as client,
                pytest.raises(Unavailable) as caught,
            ):
                client.predict("u0001")
            assert caught.value.reason == "MODEL_NOT_READY"
            assert caught.value.retry_seconds
            assert counted(running, "UNAVAILABLE", "Predict") == attempts


def test_an_answer_that_does_not_come_is_told_in_time(server):
    with Client(server.grpc_address, timeout=0.3) as client:
        server.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(DeadlineExceeded) as caught:
                client.predict("u0001")
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert (caught.value.reason, caught.value.request_id) == ("DEADLINE_EXCEEDED", "")
        assert "timeout" in caught.value.fix


@pytest.fixture(scope="module")
def rated(dsn, registry, tmp_path_factory):
    with serving(dsn, registry.uri, tmp_path_factory.mktemp("rated"), "--rate", "100") as running:
        running.until(running.is_ready)
        yield running


def test_a_caller_over_its_rate_comes_again_when_the_server_says(rated):
    with Client(rated.grpc_address, timeout=60) as client:
        # The first chunk is the whole of a second's worth, the last must wait for a debt of two.
        found = list(client.predict_many(ENTITIES, chunk=100))
    assert [p.entity_id for p in found] == list(ENTITIES)
    assert counted(rated, "RESOURCE_EXHAUSTED", "BatchPredict") >= 1
    assert counted(rated, "OK", "BatchPredict") == 3


def test_a_caller_that_cannot_wait_so_long_is_told(rated):
    with (
        Client(rated.grpc_address, timeout=15) as client,
        pytest.raises(Overloaded) as caught,
    ):
        # The first 3,000 pass, and then 29 seconds are owed.
        list(client.predict_many(ENTITIES * 20, chunk=3000))
    assert caught.value.reason == "RATE_LIMITED"
    assert caught.value.retry_seconds is not None
    assert caught.value.retry_seconds > 15


def test_a_token_is_sent_and_a_wrong_one_told(dsn, registry, tmp_path):
    token, line = new_token("shop")
    (tmp_path / "tokens").write_text(line + "\n")
    with serving(dsn, registry.uri, tmp_path, "--tokens", "tokens") as running:
        running.until(running.is_ready)
        with Client(running.grpc_address, timeout=30, token=token) as client:
            assert client.predict("u0001").entity_id == "u0001"
            assert [p.entity_id for p in client.stream(["u0001"])] == ["u0001"]
        for wrong in (None, "guessed"):
            with (
                Client(running.grpc_address, timeout=30, token=wrong) as client,
                pytest.raises(Unauthenticated),
            ):
                client.predict("u0001")


def test_tls_with_a_clients_certificate(dsn, registry, tmp_path):
    ours, theirs = authority("ours", tmp_path), authority("theirs", tmp_path)
    certificate, key = ours.issue("server", tmp_path)
    shown, shown_key = theirs.issue("client", tmp_path)
    options = ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    with serving(
        dsn, registry.uri, tmp_path, *options, "--tls-client-ca", str(theirs.pem)
    ) as running:
        good = Tls(ca=ours.pem, certificate=shown, key=shown_key)
        patient = Retry(first_seconds=2, longest_seconds=15)
        with Client(running.grpc_address, tls=good, timeout=60, retry=patient) as client:
            assert client.predict("u0001").entity_id == "u0001"
        for wrong in (None, Tls(ca=ours.pem), Tls(ca=theirs.pem, certificate=shown, key=shown_key)):
            with (
                Client(running.grpc_address, tls=wrong, timeout=30, retry=AT_ONCE) as client,
                pytest.raises(Unavailable) as caught,
            ):
                client.predict("u0001")
            assert "TLS" in caught.value.fix


def test_nobody_there_and_another_server_there():
    with Client(NOBODY, retry=AT_ONCE) as client:
        with pytest.raises(Unavailable) as caught:
            client.predict("u0001")
        assert caught.value.reason == "UNAVAILABLE"
        assert caught.value.message.startswith(client.address)
    other = grpc.server(ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    try:
        with Client(f"127.0.0.1:{port}") as client, pytest.raises(ServerFault) as fault:
            client.predict("u0001")
        assert fault.value.fix == "another gRPC server listens there"
    finally:
        other.stop(None).wait()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Client("127.0.0.1:1", timeout=0),
        lambda: Retry(attempts=6),
        lambda: Retry(attempts=0),
        lambda: Retry(first_seconds=3),
        lambda: Tls(certificate=Path("client.pem")),
    ],
)
def test_what_grpc_would_ignore_is_refused(wrong):
    with pytest.raises(ValueError, match=r"s|attempts|pauses|certificate"):
        wrong()
