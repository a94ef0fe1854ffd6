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


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A model's identity in the registry."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """One entity's prediction.

    `prediction` is 1 for the positive class and 0 for the other, `score` the positive class's
    probability. For an unknown entity both are 0 and `feature_time` is None.
    """

    entity_id: str
    status: EntityStatus
    prediction: float
    score: float
    model: ModelVersion
    feature_time: datetime | None
