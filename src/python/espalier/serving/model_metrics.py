"""What is counted for each model that a server has, by the label `model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from espalier.serving.loading import LoadedModel

_LONG = (1, 2, 4, 8)
# A call takes a millisecond or so; HTTP's time limit is 10 s, a large batch may take longer.
SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, *_LONG)
# A row is scored in tens of microseconds, and waits as long when nothing is ahead of it.
_PART_SECONDS = (0.00002, 0.00005, 0.0001, 0.0002, *SECONDS)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
MODEL_INFO = "espalier_model_info"


class Families:
    """The metrics, of all models together."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Make them in `registry`; there are no samples yet."""
        model = ["model"]
        self.batch_size = Histogram(
            "espalier_batch_entities",
            "Distinct entities a batch.",
            model,
            buckets=_SIZES,
            registry=registry,
        )
        self.queue_wait = Histogram(
            "espalier_queue_wait_seconds",
            "From a request's arrival to its batch's departure.",
            model,
            buckets=_PART_SECONDS,
            registry=registry,
        )
        self.read_seconds = Histogram(
            "espalier_feature_read_seconds",
            "One read of the online store.",
            model,
            buckets=_PART_SECONDS,
            registry=registry,
        )
        self.model_seconds = Histogram(
            "espalier_model_run_seconds",
            "One run of the model.",
            model,
            buckets=_PART_SECONDS,
            registry=registry,
        )
        self.predicted = Counter(
            "espalier_predictions",
            "Entities answered, by the status of their features and the source of their score.",
            [*model, "status", "source"],
            registry=registry,
        )
        self.feature_age = Gauge(
            "espalier_feature_age_seconds",
            "Age of the oldest feature row in the newest batch.",
            model,
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.sheds = Counter(
            "espalier_sheds",
            "Requests refused or dropped unanswered, by reason.",
            [*model, "reason"],
            registry=registry,
        )
        self.model_loaded = Gauge(
            "espalier_model_loaded",
            "1 when a model is in force; of several workers, in all of them.",
            model,
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.model_info = Gauge(
            MODEL_INFO,
            "The model in force.",
            ["name", "version"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.load_failures = Counter(
            "espalier_model_load_failures",
            "Failed tries to bring the registry's champion into force.",
            model,
            registry=registry,
        )
        self.shadowed = Counter(
            "espalier_shadow_predictions",
            "Rows for the challenger, by outcome: scored, dropped or failed.",
            [*model, "outcome"],
            registry=registry,
        )
        self.challenger = Gauge(
            "espalier_challenger_loaded",
            "1 when a challenger scores in the shadow.",
            model,
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.ready = Gauge(
            "espalier_model_ready",
            "1 when the model and its features are usable; of several workers, in all of them.",
            model,
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.waiting = Gauge(
            "espalier_queue_entities",
            "Entities that wait for a batch.",
            model,
            multiprocess_mode="livesum",
            registry=registry,
        )


class ModelMetrics:
    """One model's; an observer of its predictor, its keeper and its shadow."""

    def __init__(self, families: Families, model: str) -> None:
        """Count for `model` from zero."""
        self._model, self._families = model, families
        # `labels` takes microseconds, so its answer is kept.
        self._batch_size = families.batch_size.labels(model)
        self._queue_wait = families.queue_wait.labels(model)
        self._read_seconds = families.read_seconds.labels(model)
        self._model_seconds = families.model_seconds.labels(model)
        self._feature_age = families.feature_age.labels(model)
        self._model_loaded = families.model_loaded.labels(model)
        self._load_failures = families.load_failures.labels(model)
        self._challenger = families.challenger.labels(model)
        self._ready = families.ready.labels(model)
        self._waiting = families.waiting.labels(model)
        self._predictions: dict[tuple[str, str], Counter] = {}
        self._versions: set[tuple[str, str]] = set()
        self._queue_length: Callable[[], int] = lambda: 0

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Read the queue's length from `waiting` when sampled."""
        self._queue_length = waiting

    def sample(self) -> None:
        """See `Metrics.sample`."""
        self._waiting.set(self._queue_length())

    def batch(self, size: int, waited: Sequence[float]) -> None:
        """See `BatchObserver`."""
        self._batch_size.observe(size)
        for seconds in waited:
            self._queue_wait.observe(seconds)

    def shed(self, reason: str) -> None:
        """See `BatchObserver`."""
        self._families.sheds.labels(self._model, reason).inc()

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
                found = self._families.predicted.labels(self._model, *pair)
                self._predictions[pair] = found
            found.inc(count)

    def model_loaded(self, model: LoadedModel) -> None:
        """See `ModelObserver`."""
        self._model_loaded.set(1)
        for before in self._versions:
            self._families.model_info.labels(*before).set(0)
        now = (model.identity.name, model.identity.version)
        self._versions = {now}
        self._families.model_info.labels(*now).set(1)

    def model_load_failed(self) -> None:
        """See `ModelObserver`."""
        self._load_failures.inc()

    def shadowed(self, rows: int, outcome: str) -> None:
        """See `ShadowObserver`."""
        self._families.shadowed.labels(self._model, outcome).inc(rows)

    def challenger_loaded(self, version: str | None) -> None:
        """See `ModelObserver`."""
        self._challenger.set(version is not None)

    def ready(self, *, is_ready: bool) -> None:
        """Whether the model can predict now."""
        self._ready.set(is_ready)
