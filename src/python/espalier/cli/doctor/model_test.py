"""The checks of registry, champion and server: real ones, away, hanging, wrong, and well."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from espalier.cli.doctor.finding import Subject
from espalier.cli.doctor.testing import answering, examined, found, hanging, subject
from espalier.postgres.testing import variables
from espalier.registry.manifest import ONNX
from espalier.registry.rest import MlflowRest
from espalier.serving.testing_server import Running, serving


def looked_at(folder: Path, dsn: str, uri: str, **env: str) -> Subject:
    return subject(folder, env={**variables(dsn), "MLFLOW_TRACKING_URI": uri, **env})


@pytest.fixture(scope="module")
def champion(registered) -> str:
    promoted: list[str] = registered.promoted(0.01)
    return promoted[0]


@pytest.fixture(scope="module")
def server(registered, champion, tmp_path_factory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server")
    with serving(registered.dsn, registered.uri, folder) as running:
        running.until(running.is_ready, seconds=60)
        yield running


def served(folder: Path, registered, server: Running) -> Subject:
    return looked_at(
        folder,
        registered.dsn,
        registered.uri,
        ESPALIER_GRPC_ADDRESS=server.grpc_address,
        ESPALIER_HTTP_ADDRESS=f"{server.http.base_url.host}:{server.http.base_url.port}",
    )


@pytest.mark.parametrize("name", ["mlflow", "model"])
def test_an_mlflow_that_is_away(tmp_path, registered, name):
    finding = found(looked_at(tmp_path, registered.dsn, "http://user:secret@127.0.0.1:1"), name)
    assert finding.state == "fail"
    assert "MLflow at http://127.0.0.1:1" in finding.what
    assert "secret" not in finding.what + finding.fix
    assert "MLFLOW_TRACKING_URI" in finding.fix


def test_an_mlflow_that_hangs_and_a_model_that_is_then_not_looked_at(tmp_path, registered):
    with hanging() as port:
        mlflow, model = examined(
            looked_at(tmp_path, registered.dsn, f"http://127.0.0.1:{port}"), "mlflow", "model"
        )
    assert mlflow.finding.state == "fail"
    assert "no answer within" in mlflow.finding.what
    assert model.finding.state == "skipped"


def test_another_program_instead_of_mlflow(tmp_path, registered):
    with answering() as address:
        finding = found(looked_at(tmp_path, registered.dsn, f"http://{address}"), "model")
    assert finding.state == "fail"
    assert "no JSON" in finding.what


def test_no_model_yet(tmp_path, registered):
    other = looked_at(tmp_path, registered.dsn, registered.uri)
    finding = found(replace(other, project=replace(other.project, name="fresh")), "model")
    assert finding.state == "fail"
    assert finding.what == "no model was promoted yet"
    assert "training flow" in finding.fix


def test_a_champion_that_is_well(tmp_path, registered, champion):
    mlflow, model = examined(looked_at(tmp_path, registered.dsn, registered.uri), "mlflow", "model")
    assert mlflow.finding.state == "ok"
    assert mlflow.finding.what.startswith("MLflow 3.")
    assert (model.finding.state, model.finding.what) == (
        "ok",
        f"version {champion} is champion; its digests and golden rows agree",
    )


def test_ledger_and_registry_that_disagree(tmp_path, registered, champion):
    other = registered.register(0.02)
    with MlflowRest(registered.uri) as mlflow:
        mlflow.set_alias("churn", other)
        try:
            finding = found(looked_at(tmp_path, registered.dsn, registered.uri), "model")
        finally:
            mlflow.set_alias("churn", champion)
    assert finding.state == "fail"
    assert finding.what == f"the ledger's champion is version {champion}, MLflow's is {other}"
    assert finding.fix == "espalier.pex models ledger --repair"


def test_a_champion_whose_file_was_changed(tmp_path, registered, champion):
    file = registered.stored(champion) / ONNX
    content = file.read_bytes()
    file.write_bytes(content + b"x")
    try:
        finding = found(looked_at(tmp_path, registered.dsn, registered.uri), "model")
    finally:
        file.write_bytes(content)
    assert finding.state == "fail"
    assert "was registered with" in finding.what
    assert "roll back" in finding.fix


def test_a_server_that_serves_the_champion(tmp_path, registered, server, champion):
    finding = found(served(tmp_path, registered, server), "server")
    assert (finding.state, finding.what) == (
        "ok",
        f"gRPC and HTTP are ready, with version {champion}",
    )


def test_a_server_whose_version_is_another(tmp_path, registered, server, champion):
    # It is asked about a registry without a champion.
    with answering(404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}) as address:
        asked = {
            "ESPALIER_GRPC_ADDRESS": server.grpc_address,
            "ESPALIER_HTTP_ADDRESS": f"127.0.0.1:{server.http.base_url.port}",
        }
        finding = found(looked_at(tmp_path, registered.dsn, f"http://{address}", **asked), "server")
    assert finding.state == "fail"
    assert finding.what == f"it serves version {champion}, the champion is none"


def test_a_server_that_is_stopped_hangs_and_then_comes_back(tmp_path, registered, server):
    asked = served(tmp_path, registered, server)
    server.process.send_signal(signal.SIGSTOP)
    try:
        finding = found(asked, "server")
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert finding.state == "fail"
    assert "Deadline" in finding.what
    server.until(server.is_ready)
    assert found(asked, "server").state == "ok"


def test_a_server_without_model_is_not_ready(tmp_path, registered):
    with serving(registered.dsn, "http://127.0.0.1:1", tmp_path) as running:
        running.until(lambda: '"ready":false' in running.ready_text(), seconds=60)
        finding = found(served(tmp_path, registered, running), "server")
    assert finding.state == "fail"
    assert "NOT_SERVING" in finding.what


@pytest.mark.parametrize("kind", ["away", "hanging", "another"])
def test_a_server_that_is_none(tmp_path, registered, kind):
    with hanging() as silent, answering() as other:
        address = {"away": "127.0.0.1:1", "hanging": f"127.0.0.1:{silent}", "another": other}[kind]
        finding = found(
            looked_at(tmp_path, registered.dsn, registered.uri, ESPALIER_GRPC_ADDRESS=address),
            "server",
        )
    assert finding.state == "fail"
    assert address in finding.what
    assert "ESPALIER_GRPC_ADDRESS" in finding.fix
