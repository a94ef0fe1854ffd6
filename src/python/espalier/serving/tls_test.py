"""TLS and mTLS against a real server, both transports."""

from __future__ import annotations

import random
import shutil
import socket
import ssl

import grpc
import httpx
import pytest

from espalier.errors import ConfigurationError
from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from espalier.serving.testing_server import started
from espalier.serving.testing_tls import authority
from espalier.serving.tls import TlsFiles

REQUEST = pb.PredictRequest(entity_id="u0001")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def ours(folder):
    return authority("ours", folder)


@pytest.fixture(scope="module")
def clients(folder):
    return authority("clients", folder)


@pytest.fixture(scope="module")
def stranger(folder):
    return authority("stranger", folder)


@pytest.fixture(scope="module")
def refused(folder, clients, stranger):
    """What a client has whom the server does not let in, by what is wrong with it."""
    return {
        "none": None,
        "expired": clients.issue("late", folder, expired=True),
        "of a stranger": stranger.issue("other", folder),
    }


@pytest.fixture(scope="module")
def secured(dsn, registry, folder, ours, clients):
    """A server with mTLS; gives its addresses when it predicts."""
    certificate, key = ours.issue("server", folder)
    options = ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    with started(dsn, registry.uri, folder, *options, "--tls-client-ca", str(clients.pem)) as (
        process,
        grpc_address,
        http_address,
        log,
    ):
        assert process.stdout is not None
        assert "ready" in process.stdout.readline(), log.read_text()
        yield grpc_address, http_address


def credentials(root, pair):
    pair = (pair[1].read_bytes(), pair[0].read_bytes()) if pair else (None, None)
    return grpc.ssl_channel_credentials(root.pem.read_bytes(), *pair)


def predict_grpc(address, root, pair):
    with grpc.secure_channel(address, credentials(root, pair)) as channel:
        return pb_grpc.PredictionServiceStub(channel).Predict(REQUEST, timeout=5)


def predict_http(address, root, pair):
    context = ssl.create_default_context(cafile=root.pem)
    if pair:
        context.load_cert_chain(*pair)
    with httpx.Client(verify=context) as client:
        return client.post(f"https://{address}/predict", json={"user_id": "u0001"})


def test_a_client_with_a_certificate_of_the_authority_is_served(secured, folder, ours, clients):
    pair = clients.issue("client", folder)
    assert predict_grpc(secured[0], ours, pair).entity_id == "u0001"
    assert predict_http(secured[1], ours, pair).json()["user_id"] == "u0001"


@pytest.mark.parametrize("which", ["none", "expired", "of a stranger"])
def test_other_clients_are_turned_away(secured, ours, clients, refused, which):
    pair = refused[which]
    with pytest.raises(grpc.RpcError) as caught:
        predict_grpc(secured[0], ours, pair)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises((httpx.TransportError, ssl.SSLError)):
        predict_http(secured[1], ours, pair)
    # It serves the next good one.
    good = clients.issue("client", clients.pem.parent)
    assert predict_grpc(secured[0], ours, good).entity_id == "u0001"


def test_a_client_that_does_not_trust_the_server_leaves(secured, folder, clients, stranger):
    pair = clients.issue("client", folder)
    with pytest.raises(grpc.RpcError):
        predict_grpc(secured[0], stranger, pair)
    with pytest.raises(httpx.ConnectError, match="certificate"):
        predict_http(secured[1], stranger, pair)


def test_plain_text_is_not_answered(secured):
    with grpc.insecure_channel(secured[0]) as channel, pytest.raises(grpc.RpcError):
        pb_grpc.PredictionServiceStub(channel).Predict(REQUEST, timeout=5)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{secured[1]}/health")


def test_a_renewed_certificate_is_used_by_the_next_connection(
    secured, folder, ours, clients, stranger
):
    pair = clients.issue("client", folder)
    saved = {name: folder / f"saved{name}" for name in (".pem", ".key")}
    for name, copy in saved.items():
        shutil.copy(folder / f"server{name}", copy)
    try:
        stranger.issue("server", folder)
        assert predict_grpc(secured[0], stranger, pair).entity_id == "u0001"
    finally:
        for name, copy in saved.items():
            shutil.copy(copy, folder / f"server{name}")
    assert predict_grpc(secured[0], ours, pair).entity_id == "u0001"


def test_files_that_do_not_fit_are_named(folder, ours):
    certificate, _ = ours.issue("one", folder)
    _, key = ours.issue("two", folder)
    with pytest.raises(ConfigurationError, match=r"one\.pem with key .*two\.key cannot be used"):
        TlsFiles(certificate=certificate, key=key).context()
    empty = folder / "empty.pem"
    empty.write_text("")
    pair = {"certificate": certificate, "key": folder / "one.key"}
    with pytest.raises(ConfigurationError, match=r"client authorities .*empty\.pem"):
        TlsFiles(**pair, client_ca=empty).context()


def test_a_certificate_of_another_host_is_not_taken_for_the_servers(
    dsn, registry, tmp_path, ours, clients
):
    pair = ours.issue("elsewhere", tmp_path, host="192.0.2.1")
    options = ["--tls-certificate", str(pair[0]), "--tls-key", str(pair[1])]
    with started(dsn, registry.uri, tmp_path, *options) as (process, grpc_at, http_at, log):
        assert process.stdout is not None
        assert "ready" in process.stdout.readline(), log.read_text()
        with pytest.raises(grpc.RpcError) as caught:
            predict_grpc(grpc_at, ours, None)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(httpx.ConnectError, match="certificate"):
            predict_http(http_at, ours, None)
        assert process.poll() is None


def test_bytes_that_are_no_handshake_hold_nobody_up(secured, folder, ours, clients):
    pair = clients.issue("client", folder)
    chance = random.Random(8)
    silent = []
    try:
        for address in secured * 20:
            host, _, port = address.rpartition(":")
            connection = socket.create_connection((host, int(port)), timeout=5)
            silent.append(connection)
            # A handshake's first bytes in half of them, and then none.
            connection.sendall(b"\x16\x03\x01" * chance.randint(0, 1) + chance.randbytes(40))
        assert predict_grpc(secured[0], ours, pair).entity_id == "u0001"
        assert predict_http(secured[1], ours, pair).status_code == 200
    finally:
        for connection in silent:
            connection.close()
