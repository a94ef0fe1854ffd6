"""Fits a project's estimator and baseline, and finds the decision threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from espalier.errors import CheckRefused
from espalier.project import Project, load_function
from espalier.training import evaluate, onnx_export
from espalier.training.evaluate import Floats
from espalier.training.split import Split

# Of the entities, the part whose scores choose the threshold.
_THRESHOLD_SHARE = 0.25


@dataclass(frozen=True)
class Fitted:
    """A fitted estimator, its ONNX form and its scores of the validation rows."""

    estimator: Any
    onnx: bytes
    scores: Floats
    parity: float


def matrix(frame: pd.DataFrame, features: tuple[str, ...]) -> Floats:
    """The features [n, f] as the model gets them: float32's values, NaN for null.

    Rounded as the ONNX model's input is, so that a tree's threshold cannot fall between a value
    and its rounding.
    """
    return frame[list(features)].to_numpy(dtype=np.float32).astype(np.float64)


def fit(project: Project, reference: str, split: Split) -> Fitted:
    """Fit what `module:function` builds, convert it and score the validation rows by ONNX.

    Raises:
        ConfigurationError: the reference names no function.
        CheckRefused: the estimator does not convert to ONNX faithfully.
    """
    features = project.view.features
    estimator = load_function(reference)(seed=project.seed)
    estimator.fit(matrix(split.train, features), _target(split.train))
    onnx = onnx_export.to_onnx(estimator, len(features), name=project.name)
    rows = matrix(split.validation, features)
    parity = onnx_export.check_parity(onnx, estimator, rows)
    return Fitted(estimator, onnx, onnx_export.score(onnx, rows), parity)


def choose_threshold(project: Project, split: Split) -> float:
    """The decision threshold, by entities held out from a second fit on the training rows.

    The validation rows stay out of it, and the model's own training rows would flatter its scores.

    Raises:
        CheckRefused: there are too few entities.
    """
    key, features = project.entity.join_key, project.view.features
    entities = np.sort(split.train[key].unique())
    generator = np.random.default_rng(project.seed)
    held = generator.choice(entities, max(1, int(len(entities) * _THRESHOLD_SHARE)), replace=False)
    outside = split.train[key].isin(held)
    rest, chosen = split.train[~outside], split.train[outside]
    if rest["label"].nunique() < 2 or chosen["label"].nunique() < 2:
        raise CheckRefused(
            f"{len(entities)} entities are too few to choose a threshold by",
            fix="ingest more of them",
        )
    estimator = load_function(project.estimator)(seed=project.seed)
    estimator.fit(matrix(rest, features), _target(rest))
    scores = estimator.predict_proba(matrix(chosen, features))[:, 1]
    return evaluate.best_threshold(chosen["label"].to_numpy(dtype=bool), scores)


def _target(frame: pd.DataFrame) -> Any:
    return frame["label"].to_numpy(dtype=bool).astype(np.int64)
