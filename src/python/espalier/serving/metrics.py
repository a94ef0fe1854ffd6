"""The server's metrics, in a registry of their own."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from espalier.serving.model_metrics import MODEL_INFO, SECONDS, Families, ModelMetrics
from espalier.serving.shared_metrics import WithoutZeros, merged


class Metrics:
    """Everything the server counts; what each model counts for itself is given by `of`."""

    def __init__(self, shared: Path | None = None) -> None:
        """Make all metrics at zero.

        Args:
            shared: The folder of metrics that this process `share`s with other workers; `text`
                then tells of all of them.
        """
        self.registry = registry = CollectorRegistry()
        self._page = CollectorRegistry()
        whole = registry if shared is None else merged(shared)
        self._page.register(WithoutZeros(whole, MODEL_INFO))
        self._families = Families(registry)
        self._models: dict[str, ModelMetrics] = {}
        self._in_flights: dict[str, Gauge] = {}
        self._finished: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
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
            buckets=SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "espalier_requests_in_flight",
            "Requests under way.",
            ["transport"],
            multiprocess_mode="livesum",
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
        self._not_sampled = Counter(
            "espalier_predictions_not_sampled",
            "Rows left out of the prediction log by its sampling rate.",
            registry=registry,
        )
        self._ready = Gauge(
            "espalier_ready",
            "1 when each model and its features are usable; of several workers, in all of them.",
            multiprocess_mode="livemin",
            registry=registry,
        )
        Gauge(
            "espalier_workers",
            "Worker processes that run.",
            multiprocess_mode="livesum",
            registry=registry,
        ).set(1)

    def of(self, model: str) -> ModelMetrics:
        """Those of one model."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = self._made(model)
        return found

    def _made(self, model: str) -> ModelMetrics:
        return ModelMetrics(self._families, model)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        self.sample()
        return generate_latest(self._page)

    def sample(self) -> None:
        """Note what is only looked at now and then; each second, for scrapes by other workers."""
        for model in self._models.values():
            model.sample()

    def started(self, transport: str) -> None:
        """A request arrived."""
        self._in_flight_of(transport).inc()

    def finished(self, transport: str, method: str, code: str, seconds: float) -> None:
        """A request that `started` was answered, or given up, with `code`."""
        self._in_flight_of(transport).dec()
        # `labels` takes microseconds, so its answer is kept; there are few methods and codes.
        found = self._finished.get((transport, method, code))
        if found is None:
            found = (
                self._requests.labels(transport, method, code),
                self._latency.labels(transport, method),
            )
            self._finished[transport, method, code] = found
        found[0].inc()
        found[1].observe(seconds)

    def _in_flight_of(self, transport: str) -> Gauge:
        found = self._in_flights.get(transport)
        if found is None:
            found = self._in_flights[transport] = self._in_flight.labels(transport)
        return found

    def predictions_logged(self, rows: int) -> None:
        """See `LogObserver`."""
        self._logged.inc(rows)

    def predictions_not_logged(self, rows: int) -> None:
        """See `LogObserver`."""
        self._not_logged.inc(rows)

    def predictions_not_sampled(self, rows: int) -> None:
        """See `LogObserver`."""
        self._not_sampled.inc(rows)

    def ready(self, *, is_ready: bool) -> None:
        """Whether the server takes requests for all its models."""
        self._ready.set(is_ready)

    def stop(self) -> None:
        """From now on nothing is ready."""
        self.ready(is_ready=False)
        for model in self._models.values():
            model.ready(is_ready=False)
