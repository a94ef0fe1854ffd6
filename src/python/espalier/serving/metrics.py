"""The server's metrics, in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from espalier.serving.loading import LoadedModel

_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)


class Metrics:
    """Everything the server counts; an observer of the predictor and of the model keeper."""

    def __init__(self) -> None:
        """Make all metrics at zero."""
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "espalier_requests",
            "Requests answered, by transport, method and status code.",
            ["transport", "method", "code"],
            registry=registry,
        )
        self._latency = Histogram(
            "espalier_request_seconds",
            "From a request's arrival to its answer.",
            ["transport", "method"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "espalier_requests_in_flight", "Requests under way.", ["transport"], registry=registry
        )
        self._batch_size = Histogram(
            "espalier_batch_entities",
            "Distinct entities a batch.",
            buckets=_SIZES,
            registry=registry,
        )
        self._queue_wait = Histogram(
            "espalier_queue_wait_seconds",
            "From a request's arrival to its batch's departure.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._read_seconds = Histogram(
            "espalier_feature_read_seconds",
            "One read of the online store.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._model_seconds = Histogram(
            "espalier_model_run_seconds",
            "One run of the model.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._feature_age = Gauge(
            "espalier_feature_age_seconds",
            "Age of the oldest feature row in the newest batch.",
            registry=registry,
        )
        self._sheds = Counter(
            "espalier_sheds",
            "Requests refused or dropped unanswered, by reason.",
            ["reason"],
            registry=registry,
        )
        self._model_loaded = Gauge(
            "espalier_model_loaded", "1 when a model is in force.", registry=registry
        )
        self._model_info = Gauge(
            "espalier_model_info", "The model in force.", ["name", "version"], registry=registry
        )
        self._load_failures = Counter(
            "espalier_model_load_failures",
            "Failed tries to bring the registry's champion into force.",
            registry=registry,
        )
        self._logged = Counter(
            "espalier_predictions_logged",
            "Rows written to the prediction log.",
            registry=registry,
        )
        self._not_logged = Counter(
            "espalier_predictions_not_logged",
            "Rows dropped from the prediction log, because it could not be written in time.",
            registry=registry,
        )
        self._ready = Gauge(
            "espalier_ready", "1 when model and features are usable.", registry=registry
        )
        self._waiting = Gauge(
            "espalier_queue_entities", "Entities that wait for a batch.", registry=registry
        )

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Read the queue's length from `waiting` at each scrape."""
        self._waiting.set_function(waiting)

    def started(self, transport: str) -> None:
        """A request arrived."""
        self._in_flight.labels(transport).inc()

    def finished(self, transport: str, method: str, code: str, seconds: float) -> None:
        """A request that `started` was answered, or given up, with `code`."""
        self._in_flight.labels(transport).dec()
        self._requests.labels(transport, method, code).inc()
        self._latency.labels(transport, method).observe(seconds)

    def batch(self, size: int, waited: Sequence[float]) -> None:
        """See `BatchObserver`."""
        self._batch_size.observe(size)
        for seconds in waited:
            self._queue_wait.observe(seconds)

    def shed(self, reason: str) -> None:
        """See `BatchObserver`."""
        self._sheds.labels(reason).inc()

    def features_read(self, seconds: float, oldest: timedelta | None) -> None:
        """See `core.Observer`."""
        self._read_seconds.observe(seconds)
        if oldest is not None:
            self._feature_age.set(oldest.total_seconds())

    def scored(self, seconds: float) -> None:
        """See `core.Observer`."""
        self._model_seconds.observe(seconds)

    def model_loaded(self, model: LoadedModel) -> None:
        """See `ModelObserver`."""
        self._model_loaded.set(1)
        self._model_info.clear()
        self._model_info.labels(model.identity.name, model.identity.version).set(1)

    def model_load_failed(self) -> None:
        """See `ModelObserver`."""
        self._load_failures.inc()

    def predictions_logged(self, rows: int) -> None:
        """See `LogObserver`."""
        self._logged.inc(rows)

    def predictions_not_logged(self, rows: int) -> None:
        """See `LogObserver`."""
        self._not_logged.inc(rows)

    def ready(self, *, is_ready: bool) -> None:
        """Whether the server takes requests."""
        self._ready.set(is_ready)
