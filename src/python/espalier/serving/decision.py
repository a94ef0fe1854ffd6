"""From features to predictions: what is known of each entity, and what is done about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from espalier.errors import ScoreInvalid
from espalier.policies import Serving
from espalier.serving.loading import LoadedModel
from espalier.serving.prediction import EntityStatus, Prediction, ScoreSource
from espalier.serving.reader import FeatureRows
from espalier.serving.scorer import answers

Outcome = Prediction | ScoreInvalid

# The stricter policy decides for a row with two faults.
_STRICTNESS = {"predict": 0, "default": 1, "refuse": 2}


@dataclass(frozen=True)
class Policy:
    """A project's declared policies; `required` names the features that must not be null."""

    serving: Serving
    required: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Judged:
    """A batch before the model: the rows it is asked with, and who is answered without it."""

    rows: FeatureRows
    statuses: list[EntityStatus]
    answered: dict[str, Prediction]


def judge(
    model: LoadedModel, keys: Sequence[str], rows: FeatureRows, policy: Policy, *, now: datetime
) -> Judged:
    """Apply the project's policies to what was read.

    Args:
        model: What will score.
        keys: What was asked for; a key without a row is an unknown entity.
        rows: The rows that were found.
        policy: What to do about missing and stale features.
        now: The time at which features must not be older than the model's time to live.
    """
    serving = policy.serving
    statuses, actions = _faults(model, rows, policy, now)
    answered: dict[str, Prediction] = {}
    if any(actions):
        kept = [place for place, action in enumerate(actions) if not action]
        for place, action in enumerate(actions):
            if action:
                key = rows.keys[place]
                score = serving.default_score if action == _STRICTNESS["default"] else None
                answered[key] = _without_model(
                    model, key, statuses[place], score=score, when=rows.times[place]
                )
        rows, statuses = rows.take(kept), [statuses[place] for place in kept]
    if len(rows.keys) + len(answered) < len(keys):
        known = {*rows.keys, *answered}
        absent = tuple(key for key in keys if key not in known)
        if serving.missing_entity == "predict":
            rows = rows.with_nulls(absent)
            statuses = [*statuses, *[EntityStatus.UNKNOWN_ENTITY] * len(absent)]
        else:
            score = serving.default_score if serving.missing_entity == "default" else None
            for key in absent:
                answered[key] = _without_model(
                    model, key, EntityStatus.UNKNOWN_ENTITY, score=score, when=None
                )
    return Judged(rows, statuses, answered)


def _faults(
    model: LoadedModel, rows: FeatureRows, policy: Policy, now: datetime
) -> tuple[list[EntityStatus], list[int]]:
    """Each row's status, and how strictly it is treated."""
    serving = policy.serving
    fresh_from = now - timedelta(seconds=model.manifest.ttl_seconds)
    stale, missing = _STRICTNESS[serving.stale_feature], _STRICTNESS[serving.missing_feature]
    statuses, actions = [EntityStatus.OK] * len(rows.keys), [0] * len(rows.keys)
    for place, when in enumerate(rows.times):
        if when is not None and when < fresh_from:
            statuses[place], actions[place] = EntityStatus.STALE_FEATURES, stale
    # Two quick looks first: null is rare, and of a column that must not be null rarer.
    if policy.required and (nulls := np.isnan(rows.matrix)).any():
        places = _places(model.manifest.features, policy.required)
        for place in np.flatnonzero(nulls[:, places].any(axis=1)).tolist():
            if missing >= actions[place]:
                statuses[place], actions[place] = EntityStatus.MISSING_FEATURES, missing
    return statuses, actions


@lru_cache(maxsize=16)
def _places(features: tuple[str, ...], required: frozenset[str]) -> list[int]:
    """Which columns of a model's matrix must not be null."""
    return [place for place, name in enumerate(features) if name in required]


def _without_model(
    model: LoadedModel,
    key: str,
    status: EntityStatus,
    *,
    score: float | None,
    when: datetime | None,
) -> Prediction:
    """The answer with the default `score`, or a refusal without one."""
    if score is None:
        return Prediction(key, status, 0.0, 0.0, model.identity, when, ScoreSource.NONE)
    # There is no default of several classes.
    (decision,) = answers(model.manifest, np.array([score])).prediction.tolist()
    return Prediction(key, status, decision, score, model.identity, when, ScoreSource.DEFAULT)


def decide(
    model: LoadedModel, judged: Judged, scores: NDArray[np.float64], ok: NDArray[np.bool_]
) -> dict[str, Outcome]:
    """The outcome for each key of a batch.

    Args:
        model: What scored.
        judged: What it was asked with.
        scores: The score of each of its rows, [n] or of several classes [n, k].
        ok: Which of them are valid; another one is an error for its own callers alone.
    """
    manifest, identity = model.manifest, model.identity
    found, classes = answers(manifest, scores), manifest.classes
    outcomes: dict[str, Outcome] = {**judged.answered}
    for key, when, status, score, decision, raw, is_valid in zip(
        judged.rows.keys,
        judged.rows.times,
        judged.statuses,
        found.score.tolist(),
        found.prediction.tolist(),
        scores.tolist(),
        ok.tolist(),
        strict=True,
    ):
        if not is_valid:
            outcomes[key] = ScoreInvalid(
                f"model {identity.name} version {identity.version} scored entity {key!r} {raw}, "
                f"which is no {_VALID[manifest.task]}",
                fix="roll the model back",
                entity_id=key,
            )
        elif classes:
            outcomes[key] = Prediction(
                *(key, status, decision, score, identity, when),
                label=classes[int(decision)],
                probabilities=tuple(raw),
            )
        else:
            outcomes[key] = Prediction(key, status, decision, score, identity, when)
    return outcomes


_VALID = {
    "binary": "probability",
    "multiclass": "probability of each class",
    "regression": "finite number",
}
