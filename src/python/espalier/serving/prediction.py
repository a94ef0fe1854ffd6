"""The values that a prediction is made of. They know no transport and no library."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class EntityStatus(Enum):
    """What the online store knew of an entity."""

    OK = "OK"
    UNKNOWN_ENTITY = "UNKNOWN_ENTITY"
    STALE_FEATURES = "STALE_FEATURES"
    MISSING_FEATURES = "MISSING_FEATURES"


class ScoreSource(Enum):
    """Where a score comes from: the model, the project's default, or nowhere (refused)."""

    MODEL = "MODEL"
    DEFAULT = "DEFAULT"
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A model's identity in the registry."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """One entity's prediction.

    Of two classes `prediction` is 1 for the positive one and 0 for the other, `score` the positive
    one's probability. Of several `probabilities` has one for each in the model's order, `score` is
    the largest, `prediction` its place and `label` its name. Of a number both are the value. Where
    `source` is NONE both are 0. `feature_time` is None without a feature row.
    """

    entity_id: str
    status: EntityStatus
    prediction: float
    score: float
    model: ModelVersion
    feature_time: datetime | None
    source: ScoreSource = ScoreSource.MODEL
    label: str = ""
    probabilities: tuple[float, ...] = ()
