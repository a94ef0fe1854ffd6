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
from espalier.project import Project, Task, load_function
from espalier.training.binary import best_threshold
from espalier.training.evaluate import Floats, Labels

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


def target(frame: pd.DataFrame) -> Labels:
    """The labels [n]: bool, places of classes, or numbers."""
    return frame["label"].to_numpy()


def unfitted(project: Project, reference: str, settings: Mapping[str, Setting]) -> Any:
    """What `module:function` builds with the project's seed and the settings.

    Raises:
        ConfigurationError: the reference names no function, or one that lacks a setting, or it
            builds a classifier for a number or a regressor for classes.
    """
    build = load_function(reference)
    try:
        built = build(seed=project.seed, **settings)
    except TypeError as error:
        raise ConfigurationError(
            f"{reference} cannot be built: {error}",
            fix="let it take seed= and every setting that the search space names",
        ) from error
    from sklearn.base import is_classifier, is_regressor

    wanted = "regressor" if project.task is Task.REGRESSION else "classifier"
    is_it = is_regressor if project.task is Task.REGRESSION else is_classifier
    if not is_it(built):
        raise ConfigurationError(
            f"{reference} builds a {type(built).__name__}, which is no {wanted}",
            fix=f"label {project.label.column} is {project.task.value}: build a {wanted}",
        )
    return built


def fit(
    project: Project,
    reference: str,
    rows: pd.DataFrame,
    settings: Mapping[str, Setting] | None = None,
    calibration: str = "none",
) -> Any:
    """The fitted classifier or regressor.

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
    labels = target(rows)
    if project.task is not Task.REGRESSION:
        labels = labels.astype(np.int64)
    estimator.fit(matrix(rows, project.view.features), labels)
    return estimator


def score(project: Project, estimator: Any, rows: pd.DataFrame) -> Floats:
    """The scores of rows by scikit-learn, as `scores_of` gives them."""
    return scores_of(estimator, matrix(rows, project.view.features))


def scores_of(estimator: Any, features: Floats) -> Floats:
    """What a fitted estimator says of rows [n, f].

    These are the positive class's probability [n], of several classes the probabilities [n, k], or
    a regressor's values [n].
    """
    from sklearn.base import is_regressor

    if is_regressor(estimator):
        return np.asarray(estimator.predict(features), dtype=np.float64).reshape(-1)
    found = np.asarray(estimator.predict_proba(features), dtype=np.float64)
    return found[:, 1] if found.shape[1] == 2 else found


def choose_threshold(
    project: Project, rows: pd.DataFrame, settings: Mapping[str, Setting] | None = None
) -> float:
    """The decision threshold, by entities held out from a second fit on the training rows.

    It is 0, and of no meaning, unless there are two classes.

    Raises:
        CheckRefused: there are too few entities.
    """
    if project.task is not Task.BINARY:
        return 0.0
    outside = _part_of_entities(project, rows, _THRESHOLD_PARTS) == 0
    rest, chosen = rows[~outside], rows[outside]
    if rest["label"].nunique() < 2 or chosen["label"].nunique() < 2:
        raise _too_few(project, rows, "choose a threshold")
    estimator = fit(project, project.estimator, rest, settings, project.calibration)
    scores = score(project, estimator, chosen)
    return best_threshold(target(chosen), scores, project.decision)


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
