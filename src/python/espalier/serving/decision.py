"""From scores to predictions: what is known of each entity, and what the threshold says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from espalier.errors import ScoreInvalid
from espalier.serving.loading import LoadedModel
from espalier.serving.prediction import EntityStatus, Prediction
from espalier.serving.reader import FeatureRows
from espalier.serving.scorer import valid

Outcome = Prediction | ScoreInvalid


def decide(
    model: LoadedModel,
    keys: Sequence[str],
    rows: FeatureRows,
    scores: NDArray[np.float64],
    *,
    now: datetime,
) -> dict[str, Outcome]:
    """The outcome for each of the distinct `keys`.

    Args:
        model: What scored.
        keys: What was asked for; a key without a row is an unknown entity.
        rows: The rows that were found.
        scores: The score [n] of each row. One that is no probability is an error for its own
            callers alone.
        now: The time at which features must not be older than the model's time to live.
    """
    fresh_from = now - timedelta(seconds=model.manifest.ttl_seconds)
    threshold, identity = model.manifest.threshold, model.identity
    outcomes: dict[str, Outcome] = {}
    for key, when, score, ok in zip(
        rows.keys, rows.times, scores.tolist(), valid(scores).tolist(), strict=True
    ):
        if not ok:
            outcomes[key] = ScoreInvalid(
                f"model {identity.name} version {identity.version} scored entity {key!r} {score}, "
                "which is no probability",
                fix="roll the model back",
                entity_id=key,
            )
            continue
        status = EntityStatus.OK if when >= fresh_from else EntityStatus.STALE_FEATURES
        decision = 1.0 if score >= threshold else 0.0
        outcomes[key] = Prediction(key, status, decision, score, identity, when)
    for key in keys:
        if key not in outcomes:
            unknown = EntityStatus.UNKNOWN_ENTITY
            outcomes[key] = Prediction(key, unknown, 0.0, 0.0, identity, None)
    return outcomes
