"""Spans of a real server, received by a real collector's gRPC service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field

import grpc
import psycopg
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from espalier.prediction.v1 import prediction_pb2
from espalier.serving.testing_server import Running, serving
from espalier.testing_web import NOBODY

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ERROR = 2


@dataclass
class Collector(pb_grpc.TraceServiceServicer):
    """Keeps what it is sent."""

    address: str = ""
    services: set[str] = field(default_factory=set)
    spans: list[Span] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def Export(  # noqa: N802  # the generated name
        self, request: pb.ExportTraceServiceRequest, _context: grpc.ServicerContext
    ) -> pb.ExportTraceServiceResponse:
        with self.lock:
            for group in request.resource_spans:
                named = {a.key: a.value.string_value for a in group.resource.attributes}
                self.services.add(named["service.name"])
                self.spans += [span for scope in group.scope_spans for span in scope.spans]
        return pb.ExportTraceServiceResponse()

    def of(self, request_id: str) -> dict[str, Span]:
        """The span of that request and those under it, by name."""
        with self.lock:
            own = [span for span in self.spans if request_id in attributes(span).values()]
            ids = {span.span_id for span in own}
            return {s.name: s for s in self.spans if s in own or s.parent_span_id in ids}


def attributes(span: Span) -> dict[str, str | int]:
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    found = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    pb_grpc.add_TraceServiceServicer_to_server(found, server)
    found.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield found
    finally:
        server.stop(0).wait()


@pytest.fixture(scope="module")
def traced(dsn, registry, collector, tmp_path_factory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        variables.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with serving(dsn, registry.uri, tmp_path_factory.mktemp("traced")) as running:
            running.until(running.is_ready)
            yield running


def headers(request_id: str, flags: str = "01") -> list[tuple[str, str]]:
    return [("x-request-id", request_id), ("traceparent", f"00-{TRACE}-{PARENT}-{flags}")]


def one(entity: str) -> prediction_pb2.PredictRequest:
    return prediction_pb2.PredictRequest(entity_id=entity)


def test_a_call_is_a_span_under_the_callers_with_what_was_done_for_it(traced, collector):
    traced.stub.Predict(one("u0001"), metadata=headers("a-call"), timeout=10)
    traced.until(lambda: len(collector.of("a-call")) == 3)
    found = collector.of("a-call")
    request = found["Predict"]
    assert request.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == PARENT
    assert request.kind == Span.SPAN_KIND_SERVER
    assert attributes(request)["rpc.response.status_code"] == "OK"
    assert collector.services == {"churn-server"}
    for name in ("read features", "run model"):
        part = found[name]
        assert part.trace_id.hex() == TRACE
        assert part.parent_span_id == request.span_id
        assert part.start_time_unix_nano <= part.end_time_unix_nano
        assert attributes(part)["espalier.batch_entities"] == 1


def test_each_of_a_batchs_callers_has_its_own_spans(traced, collector):
    names = [f"mate-{number}" for number in range(20)]
    calls = [
        traced.stub.Predict.future(one("u0002"), metadata=headers(name), timeout=10)
        for name in names
    ]
    for call in calls:
        call.result()
    traced.until(lambda: all("Predict" in collector.of(name) for name in names))
    # All asked for one entity, which is read for the first of them in its batch.
    traced.until(lambda: any(len(collector.of(name)) == 3 for name in names))
    assert {collector.of(name)["Predict"].trace_id.hex() for name in names} == {TRACE}


def test_a_request_without_a_trace_begins_one_which_the_prediction_log_knows(
    traced, collector, dsn
):
    answer = traced.http.post(
        "/predict", json={"user_id": "u0003"}, headers={"x-request-id": "no-trace"}
    )
    assert answer.status_code == 200
    traced.until(lambda: len(collector.of("no-trace")) == 3)
    request = collector.of("no-trace")["POST /predict"]
    assert request.parent_span_id == b""
    assert attributes(request)["http.response.status_code"] == 200
    select = "SELECT trace_id FROM espalier.predictions WHERE request_id = 'no-trace'"
    with psycopg.connect(dsn, autocommit=True) as connection:
        traced.until(lambda: connection.execute(select).fetchall())
        assert connection.execute(select).fetchall() == [(request.trace_id.hex(),)]


def test_what_the_caller_does_not_sample_is_not_sent(traced, collector):
    traced.stub.Predict(one("u0004"), metadata=headers("unsampled", "00"), timeout=10)
    traced.stub.Predict(one("u0004"), metadata=headers("sampled-after-it"), timeout=10)
    traced.until(lambda: collector.of("sampled-after-it"))
    assert collector.of("unsampled") == {}


def test_an_error_of_the_caller_is_none_of_the_server(traced, collector):
    with pytest.raises(grpc.RpcError):
        traced.stub.Predict(one("nobody"), metadata=headers("unknown"), timeout=10)
    assert traced.http.post("/predict", json={"user_id": "nulled"}).status_code == 500
    traced.until(lambda: collector.of("unknown"))
    request = collector.of("unknown")["Predict"]
    assert attributes(request)["rpc.response.status_code"] == "NOT_FOUND"
    assert request.status.code != ERROR
    traced.until(lambda: any(span.status.code == ERROR for span in collector.spans))


def test_a_collector_that_is_away_takes_nothing_from_predictions_or_the_stop(
    dsn, registry, tmp_path, monkeypatch
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{NOBODY}")
    with serving(dsn, registry.uri, tmp_path) as running:
        running.until(running.is_ready)
        for number in range(50):
            running.stub.Predict(one(f"u{number:04}"), timeout=10)
        running.process.terminate()
        assert running.process.wait(30) == 0
        assert '"stopped"' in running.log.read_text()
