"""Checks of the model: MLflow, the champion, and the server that serves it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from espalier.cli.doctor import http
from espalier.cli.doctor.finding import Finding, Subject, fail, ok, warn
from espalier.errors import DependencyUnreachable
from espalier.postgres.connect import connect
from espalier.registry import download, ledger, loadable
from espalier.serving import listeners

_GRPC_SECONDS = 5.0


def mlflow(subject: Subject) -> Finding:
    """MLflow answers."""
    uri = subject.settings.mlflow_tracking_uri
    fix = "start it, or set MLFLOW_TRACKING_URI to the server's address"
    version = http.get(f"{uri}/version", "MLflow", fix)
    return ok(f"MLflow {version.text.strip()[:20]} at {http.shown(uri)}")


def model(subject: Subject) -> Finding:
    """There is a champion, ledger and registry agree about it, and it can be loaded."""
    uri, name = subject.settings.mlflow_tracking_uri, subject.project.name
    with connect(subject.settings.dsn) as connection:
        last = ledger.last(connection, name)
    alias = download.current_version(uri, name)
    if last is None and alias is None:
        return fail("no model was promoted yet", "run the training flow until one passes its gate")
    if last is None or alias != last.to_version:
        recorded = "none" if last is None else f"version {last.to_version}"
        return fail(
            f"the ledger's champion is {recorded}, MLflow's is {alias or 'none'}",
            "espalier.pex models ledger --repair",
        )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        fetched = download.fetch_version(uri, name, alias, Path(scratch))
        loadable.check(fetched)
    return ok(f"version {alias} is champion; its digests and golden rows agree")


def server(subject: Subject) -> Finding:
    """The prediction server answers on both transports, is ready, and serves the champion."""
    grpc_problem = _grpc_problem(subject.settings.grpc_address)
    if grpc_problem is not None:
        return grpc_problem
    if not subject.settings.http_address:
        return ok("gRPC is serving; there is no HTTP to ask for the version")
    base = f"http://{http.local(subject.settings.http_address)}"
    fix = "start it, or set ESPALIER_HTTP_ADDRESS to where it is"
    ready = http.get(f"{base}/ready", "the prediction server", fix, accept=(503,))
    said = http.json_of(ready)
    if ready.status_code != 200 or said.get("ready") is not True:
        missing = "; ".join(map(str, said.get("missing") or ())) or f"status {ready.status_code}"
        return fail(f"the prediction server is not ready: {missing}"[:300], "see its log")
    answer = http.get(f"{base}/model", "the prediction server", fix, accept=(401,))
    if answer.status_code == 401:
        return ok("gRPC and HTTP are ready; without a token it does not tell its model")
    serving = str(http.json_of(answer).get("version", ""))
    champion = download.current_version(subject.settings.mlflow_tracking_uri, subject.project.name)
    if serving != champion:
        return fail(
            f"it serves version {serving or 'none'}, the champion is {champion or 'none'}",
            "wait for ESPALIER_MODEL_POLL_SECONDS; if it stays, its log says why it does not load",
        )
    return ok(f"gRPC and HTTP are ready, with version {serving}")


def _grpc_problem(address: str) -> Finding | None:
    """What keeps gRPC from serving; None when it does."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    host, port = listeners.split(address)
    at = http.local(address)
    fix = "start it, or set ESPALIER_GRPC_ADDRESS to where it is"
    with grpc.insecure_channel(at) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_GRPC_SECONDS)
        except grpc.RpcError as error:
            return _refused(error, at, host.strip("[]"), port, fix)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return fail(f"gRPC at {at} is {status}", "ask its /ready what is missing, and see its log")
    return None


def _refused(error: Any, at: str, host: str, port: int, fix: str) -> Finding:
    if http.speaks_tls("127.0.0.1" if host in http.EVERYWHERE else host, port):
        return warn(
            f"gRPC at {at} answers by TLS, which doctor does not ask further",
            "ask it with grpcurl -cacert, and look at its log",
        )
    told = str(error.details() or error.code().name).splitlines()[0][:160]
    if error.code().name == "UNIMPLEMENTED":
        return fail(f"another gRPC server listens on {at}", "end it, or choose another address")
    raise DependencyUnreachable(f"gRPC at {at}: {told}", fix=fix) from error
