"""The server's metrics, in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from espalier.serving.loading import LoadedModel
from espalier.serving.shared_metrics import WithoutZeros, merged

_LONG = (1, 2, 4, 8)
# A call takes a millisecond or so; HTTP's time limit is 10 s, a large batch may take longer.
_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, *_LONG)
# A row is scored in tens of microseconds, and waits as long when nothing is ahead of it.
_PART_SECONDS = (0.00002, 0.00005, 0.0001, 0.0002, *_SECONDS)
_MODEL_INFO = "espalier_model_info"
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)


class Metrics:
    """Everything the server counts; an observer of the predictor and of the model keeper."""

    def __init__(self, shared: Path | None = None) -> None:
        """Make all metrics at zero.

        Args:
            shared: The folder of metrics that this process `share`s with other workers; `text`
                then tells of all of them.
        """
        self.registry = registry = CollectorRegistry()
        self._page = CollectorRegistry()
        whole = registry if shared is None else merged(shared)
        self._page.register(WithoutZeros(whole, _MODEL_INFO))
        self._queue_length: Callable[[], int] = lambda: 0
        self._versions: set[tuple[str, str]] = set()
        self._predictions: dict[tuple[str, str], Counter] = {}
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
            buckets=_SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "espalier_requests_in_flight",
            "Requests under way.",
            ["transport"],
            multiprocess_mode="livesum",
            registry=registry,
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
            buckets=_PART_SECONDS,
            registry=registry,
        )
        self._read_seconds = Histogram(
            "espalier_feature_read_seconds",
            "One read of the online store.",
            buckets=_PART_SECONDS,
            registry=registry,
        )
        self._model_seconds = Histogram(
            "espalier_model_run_seconds",
            "One run of the model.",
            buckets=_PART_SECONDS,
            registry=registry,
        )
        self._predicted = Counter(
            "espalier_predictions",
            "Entities answered, by the status of their features and the source of their score.",
            ["status", "source"],
            registry=registry,
        )
        self._feature_age = Gauge(
            "espalier_feature_age_seconds",
            "Age of the oldest feature row in the newest batch.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._sheds = Counter(
            "espalier_sheds",
            "Requests refused or dropped unanswered, by reason.",
            ["reason"],
            registry=registry,
        )
        self._model_loaded = Gauge(
            "espalier_model_loaded",
            "1 when a model is in force; of several workers, in all of them.",
            multiprocess_mode="livemin",
            registry=registry,
        )
        self._model_info = Gauge(
            _MODEL_INFO,
            "The model in force.",
            ["name", "version"],
            multiprocess_mode="livemax",
            registry=registry,
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
        self._not_sampled = Counter(
            "espalier_predictions_not_sampled",
            "Rows left out of the prediction log by its sampling rate.",
            registry=registry,
        )
        self._shadowed = Counter(
            "espalier_shadow_predictions",
            "Rows for the challenger, by outcome: scored, dropped or failed.",
            ["outcome"],
            registry=registry,
        )
        self._challenger = Gauge(
            "espalier_challenger_loaded",
            "1 when a challenger scores in the shadow.",
            multiprocess_mode="livemin",
            registry=registry,
        )
        self._ready = Gauge(
            "espalier_ready",
            "1 when model and features are usable; of several workers, in all of them.",
            multiprocess_mode="livemin",
            registry=registry,
        )
        self._waiting = Gauge(
            "espalier_queue_entities",
            "Entities that wait for a batch.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        Gauge(
            "espalier_workers",
            "Worker processes that run.",
            multiprocess_mode="livesum",
            registry=registry,
        ).set(1)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        self.sample()
        return generate_latest(self._page)

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Read the queue's length from `waiting` when sampled."""
        self._queue_length = waiting

    def sample(self) -> None:
        """Note what is only looked at now and then; each second, for scrapes by other workers."""
        self._waiting.set(self._queue_length())

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

    def predicted(self, counts: Mapping[tuple[str, str], int]) -> None:
        """See `core.Observer`."""
        for pair, count in counts.items():
            found = self._predictions.get(pair)
            if found is None:
                found = self._predictions[pair] = self._predicted.labels(*pair)
            found.inc(count)

    def model_loaded(self, model: LoadedModel) -> None:
        """See `ModelObserver`."""
        self._model_loaded.set(1)
        for before in self._versions:
            self._model_info.labels(*before).set(0)
        now = (model.identity.name, model.identity.version)
        self._versions = {now}
        self._model_info.labels(*now).set(1)

    def model_load_failed(self) -> None:
        """See `ModelObserver`."""
        self._load_failures.inc()

    def predictions_logged(self, rows: int) -> None:
        """See `LogObserver`."""
        self._logged.inc(rows)

    def predictions_not_logged(self, rows: int) -> None:
        """See `LogObserver`."""
        self._not_logged.inc(rows)

    def predictions_not_sampled(self, rows: int) -> None:
        """See `LogObserver`."""
        self._not_sampled.inc(rows)

    def shadowed(self, rows: int, outcome: str) -> None:
        """See `ShadowObserver`."""
        self._shadowed.labels(outcome).inc(rows)

    def challenger_loaded(self, version: str | None) -> None:
        """See `ModelObserver`."""
        self._challenger.set(version is not None)

    def ready(self, *, is_ready: bool) -> None:
        """Whether the server takes requests."""
        self._ready.set(is_ready)
