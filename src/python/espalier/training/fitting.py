"""Fits what a project declares: its estimator with given settings, calibrated, and its threshold.

Calibration and threshold are found without the validation rows, by entities that the fitted
estimator did not see: a model's own training rows would flatter its scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from espalier.errors import CheckRefused, ConfigurationError
from espalier.policies import Setting
from espalier.project import Project, load_function
from espalier.training import evaluate
from espalier.training.evaluate import Booleans, Floats

# One of so many parts of the entities: those whose scores choose the threshold.
_THRESHOLD_PARTS = 4
# The parts into which entities are cut for calibration, each scored by a fit on the others.
_CALIBRATION_PARTS = 3


def matrix(frame: pd.DataFrame, features: tuple[str, ...]) -> Floats:
    """The features [n, f] as the model gets them: float32's values, NaN for null.

    Rounded as the ONNX model's input is, so that a tree's threshold cannot fall between a value
    and its rounding.
    """
    return frame[list(features)].to_numpy(dtype=np.float32).astype(np.float64)


def target(frame: pd.DataFrame) -> Booleans:
    """The labels [n]."""
    return frame["label"].to_numpy(dtype=bool)


def unfitted(project: Project, reference: str, settings: Mapping[str, Setting]) -> Any:
    """What `module:function` builds with the project's seed and the settings.

    Raises:
        ConfigurationError: the reference names no function, or one that lacks a setting.
    """
    build = load_function(reference)
    try:
        return build(seed=project.seed, **settings)
    except TypeError as error:
        raise ConfigurationError(
            f"{reference} cannot be built: {error}",
            fix="let it take seed= and every setting that the search space names",
        ) from error


def fit(
    project: Project,
    reference: str,
    rows: pd.DataFrame,
    settings: Mapping[str, Setting] | None = None,
    calibration: str = "none",
) -> Any:
    """The fitted classifier.

    With a calibration the last step is wrapped: it is fitted on all rows, and its scores are mapped
    to probabilities by what it scored, fitted on other entities, for entities held out. The steps
    before it are fitted on all rows.

    Raises:
        ConfigurationError: see `unfitted`.
        CheckRefused: there are too few entities to calibrate by.
    """
    estimator = unfitted(project, reference, settings or {})
    if calibration != "none":
        estimator = _calibrated(project, estimator, rows, calibration)
    estimator.fit(matrix(rows, project.view.features), target(rows).astype(np.int64))
    return estimator


def score(project: Project, estimator: Any, rows: pd.DataFrame) -> Floats:
    """The positive class's probability [n], by scikit-learn."""
    found = estimator.predict_proba(matrix(rows, project.view.features))[:, 1]
    return np.asarray(found, dtype=np.float64)


def choose_threshold(
    project: Project, rows: pd.DataFrame, settings: Mapping[str, Setting] | None = None
) -> float:
    """The decision threshold, by entities held out from a second fit on the training rows.

    Raises:
        CheckRefused: there are too few entities.
    """
    outside = _part_of_entities(project, rows, _THRESHOLD_PARTS) == 0
    rest, chosen = rows[~outside], rows[outside]
    if rest["label"].nunique() < 2 or chosen["label"].nunique() < 2:
        raise _too_few(project, rows, "choose a threshold")
    estimator = fit(project, project.estimator, rest, settings, project.calibration)
    scores = score(project, estimator, chosen)
    return evaluate.best_threshold(target(chosen), scores, project.decision)


def _calibrated(project: Project, estimator: Any, rows: pd.DataFrame, method: str) -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.pipeline import Pipeline

    part = _part_of_entities(project, rows, _CALIBRATION_PARTS)
    labels = target(rows)
    folds = [(np.flatnonzero(part != p), np.flatnonzero(part == p)) for p in np.unique(part)]
    if len(folds) < _CALIBRATION_PARTS or any(len(np.unique(labels[f])) < 2 for f, _ in folds):
        raise _too_few(project, rows, "calibrate")
    steps = list(estimator.steps) if isinstance(estimator, Pipeline) else [("model", estimator)]
    *before, (name, last) = steps
    wrapped = CalibratedClassifierCV(last, method=method, cv=folds, ensemble=False)
    # Only the last step: skl2onnx converts a calibrated pipeline otherwise than it scores.
    return Pipeline([*before, (name, wrapped)])


def _part_of_entities(project: Project, rows: pd.DataFrame, parts: int) -> Any:
    """A part's number for each row [n]: seeded, equal for all rows of an entity."""
    codes, entities = pd.factorize(rows[project.entity.join_key], sort=True)
    shuffled = np.random.default_rng(project.seed).permutation(len(entities))
    return shuffled[codes] % parts


def _too_few(project: Project, rows: pd.DataFrame, purpose: str) -> CheckRefused:
    entities = rows[project.entity.join_key].nunique()
    return CheckRefused(
        f"{entities} entities are too few to {purpose} by", fix="ingest more of them"
    )
