"""OpenTelemetry: a span for each request, its feature read and its model run, sent by OTLP.

Imported only where a collector is configured; without one nothing here costs a request anything.
The spans begin and end where metrics are counted and predictions are logged, so the predictor knows
nothing of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

from espalier.serving.batching import Origins
from espalier.serving.caller import CURRENT, Caller
from espalier.serving.core import PredictionSink
from espalier.serving.loading import LoadedModel
from espalier.serving.metrics import Metrics
from espalier.serving.model_metrics import ModelMetrics
from espalier.serving.reader import FeatureRows

# What a server is at fault for, by OpenTelemetry's conventions; the rest is its callers'.
_OUR_FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
_UNNAMED = "unknown_service"
_GIVE_UP_SECONDS = 1.0

# Start and end in ns of what a batch has done; a batch has a context of its own.
_READ: ContextVar[tuple[int, int] | None] = ContextVar("read", default=None)
_RUN: ContextVar[tuple[int, int] | None] = ContextVar("run", default=None)


class Tracing:
    """Makes spans and sends them, in a thread of its own; what a full queue has no room for is lost.

    Sampling, limits and headers are set by OpenTelemetry's own variables (`OTEL_*`). A caller's
    decision to sample is followed.
    """

    def __init__(self, endpoint: str, *, service: str) -> None:
        """Send to the collector at `endpoint`, by gRPC; it need not be there yet.

        Args:
            endpoint: http://HOST:PORT, or https for TLS.
            service: What the spans are of, unless OTEL_SERVICE_NAME says it.
        """
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith(_UNNAMED):
            resource = resource.merge(Resource({SERVICE_NAME: service}))
        # The server closes it, within its time.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._exporter = OTLPSpanExporter(endpoint=endpoint)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("espalier.serving")
        # It tells of each failed try, and of a collector that is away there are many.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)

    def begin(self, caller: Caller) -> Caller:
        """The caller with the span of its request; without a trace of its own it gets a new one."""
        parent = None
        if caller.trace_id:
            context = trace.SpanContext(
                trace_id=int(caller.trace_id, 16),
                span_id=int(caller.parent_id, 16),
                is_remote=True,
                trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED if caller.sampled else 0),
            )
            parent = trace.set_span_in_context(trace.NonRecordingSpan(context))
        span = self._tracer.start_span(
            "request",
            context=parent,
            kind=SpanKind.SERVER,
            attributes={"espalier.request_id": caller.request_id},
        )
        found = span.get_span_context()
        if not found.is_valid:
            return caller
        return replace(caller, trace_id=trace.format_trace_id(found.trace_id), span=span)

    def end(self, caller: Caller | None, transport: str, method: str, code: str) -> None:
        """The caller's request was answered with `code`."""
        span = _span(caller)
        if span is None:
            return
        if transport == "grpc":
            span.update_name(method)
            span.set_attributes({"rpc.system": "grpc", "rpc.method": method})
            span.set_attribute("rpc.response.status_code", code)
            failed = code in _OUR_FAULTS
        else:
            span.update_name(f"POST /{method}")
            span.set_attributes({"http.request.method": "POST", "http.route": f"/{method}"})
            span.set_attribute("http.response.status_code", int(code))
            failed = code.startswith("5")
        if failed:
            span.set_status(Status(StatusCode.ERROR, code))
        span.end()

    def part(
        self,
        callers: Iterable[Caller | None],
        name: str,
        times: tuple[int, int],
        *,
        model: str,
        entities: int,
    ) -> None:
        """What was done for several requests at once is a span under each of them."""
        # By identity: an id that a client uses for several requests makes equal callers.
        for span in {id(span): span for caller in callers if (span := _span(caller))}.values():
            self._tracer.start_span(
                name,
                context=trace.set_span_in_context(span),
                start_time=times[0],
                attributes={"espalier.model": model, "espalier.batch_entities": entities},
            ).end(times[1])

    def metrics(self, shared: Path | None) -> Metrics:
        """Metrics that end the spans of the requests that they count; see `Metrics`."""
        return _TracedMetrics(self, shared)

    def sink(self, log: PredictionSink | None) -> PredictionSink:
        """A sink before `log`, or before none, that learns whose requests a batch had."""
        return _TracedSink(self, log)

    def close(self, seconds: float) -> None:
        """Send what waits, blocking for `seconds` at most; what is left then is lost."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(seconds)
        if sending.is_alive():
            # It tries again and again where no collector is; this ends that.
            self._exporter.shutdown()
            sending.join(_GIVE_UP_SECONDS)


class _TracedMetrics(Metrics):
    def __init__(self, tracing: Tracing, shared: Path | None) -> None:
        super().__init__(shared)
        self._tracing = tracing

    def _made(self, model: str) -> ModelMetrics:
        return _TracedModelMetrics(self._families, model)

    def finished(self, transport: str, method: str, code: str, seconds: float) -> None:
        """See `Metrics`."""
        super().finished(transport, method, code, seconds)
        self._tracing.end(CURRENT.get(), transport, method, code)


class _TracedModelMetrics(ModelMetrics):
    def features_read(self, seconds: float, oldest: timedelta | None) -> None:
        """See `core.Observer`."""
        super().features_read(seconds, oldest)
        _READ.set(_until_now(seconds))

    def scored(self, seconds: float) -> None:
        """See `core.Observer`."""
        super().scored(seconds)
        _RUN.set(_until_now(seconds))


class _TracedSink:
    def __init__(self, tracing: Tracing, log: PredictionSink | None) -> None:
        self._tracing, self._log = tracing, log

    def record(
        self,
        model: LoadedModel,
        rows: FeatureRows,
        scores: NDArray[np.float64],
        at: datetime,
        origins: Origins[str],
        *,
        shadow: bool = False,
    ) -> None:
        """See `PredictionSink`."""
        for name, times in (("read features", _READ.get()), ("run model", _RUN.get())):
            if times is not None:
                self._tracing.part(
                    origins.values(),
                    name,
                    times,
                    model=model.identity.name,
                    entities=len(rows.keys),
                )
        if self._log is not None:
            self._log.record(model, rows, scores, at, origins, shadow=shadow)


def _span(caller: Caller | None) -> trace.Span | None:
    """The span of a caller's request, if it is sampled."""
    if caller is None or not isinstance(caller.span, trace.Span):
        return None
    return caller.span if caller.span.is_recording() else None


def _until_now(seconds: float) -> tuple[int, int]:
    now = time.time_ns()
    return now - int(seconds * 1e9), now
