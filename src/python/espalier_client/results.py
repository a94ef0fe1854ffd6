"""What a server answers, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from espalier.prediction.v1 import prediction_pb2 as pb


class EntityStatus(StrEnum):
    """What the online store knew of an entity."""

    OK = "OK"
    UNKNOWN_ENTITY = "UNKNOWN_ENTITY"
    STALE_FEATURES = "STALE_FEATURES"
    MISSING_FEATURES = "MISSING_FEATURES"
    # What only a newer server knows.
    UNSPECIFIED = "UNSPECIFIED"


class ScoreSource(StrEnum):
    """Where a prediction's numbers come from."""

    MODEL = "MODEL"
    DEFAULT = "DEFAULT"
    NONE = "NONE"
    UNSPECIFIED = "UNSPECIFIED"


_STATUS = {pb.EntityStatus.Value(f"ENTITY_STATUS_{kind}"): kind for kind in EntityStatus}
_SOURCE = {pb.ScoreSource.Value(f"SCORE_SOURCE_{kind}"): kind for kind in ScoreSource}


@dataclass(frozen=True, slots=True)
class Prediction:
    """One prediction.

    Attributes:
        entity_id: The entity's key, as asked.
        prediction: Of two classes: 1 for the positive one, 0 for the other. Of several: the place
            of the most probable one. Of a number: the value.
        score: The probability of the positive, or of the most probable, class; or the value.
        label: The most probable class by name; empty unless the model tells several apart.
        probabilities: One for each class, in the order of `Model.classes`; only of several.
        model: The name of the model that answered.
        version: Its version.
        status: Whether the features were there and usable.
        source: Where the numbers come from; from `NONE`, they are 0.
        feature_time: When the facts behind the features happened; None without any.
    """

    entity_id: str
    prediction: float
    score: float
    label: str
    probabilities: tuple[float, ...]
    model: str
    version: str
    status: EntityStatus
    source: ScoreSource
    feature_time: datetime | None

    @classmethod
    def of(cls, message: pb.PredictResponse) -> Prediction:
        """The value of a message."""
        timed = message.HasField("feature_time")
        return cls(
            entity_id=message.entity_id,
            prediction=message.prediction,
            score=message.score,
            label=message.label,
            probabilities=tuple(message.probabilities),
            model=message.model.name,
            version=message.model.version,
            status=_STATUS.get(message.status, EntityStatus.UNSPECIFIED),
            source=_SOURCE.get(message.source, ScoreSource.UNSPECIFIED),
            feature_time=message.feature_time.ToDatetime(tzinfo=UTC) if timed else None,
        )


@dataclass(frozen=True, slots=True)
class Feature:
    """One input of a model and its type in the online store."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Model:
    """The model that is served.

    Attributes:
        name: The registered model's name.
        version: The registry's version number.
        task: What it predicts: "binary", "multiclass" or "regression".
        classes: The names of a multiclass model's classes, in the order of probabilities.
        threshold: Scores at or above it are predicted positive; only of a binary model.
        features: The features it takes, in order.
        metrics: By name, on the newest labelled rows at training time.
        provenance: Snapshot, code and data digests, by name.
    """

    name: str
    version: str
    task: str
    classes: tuple[str, ...]
    threshold: float
    features: tuple[Feature, ...]
    metrics: Mapping[str, float]
    provenance: Mapping[str, str]

    @classmethod
    def of(cls, message: pb.GetModelResponse) -> Model:
        """The value of a message."""
        return cls(
            name=message.model.name,
            version=message.model.version,
            task=message.task,
            classes=tuple(message.classes),
            threshold=message.threshold,
            features=tuple(Feature(each.name, each.type) for each in message.features),
            metrics=dict(message.metrics),
            provenance=dict(message.provenance),
        )
