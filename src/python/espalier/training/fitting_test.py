from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV

from churn.project import PROJECT
from espalier.errors import CheckRefused, ConfigurationError
from espalier.policies import Decision
from espalier.training import evaluate, fitting, onnx_export, testing_tasks
from espalier.training.testing_tasks import CANCER, DIABETES

FEATURES = PROJECT.view.features


def frame(entities: int = 600, seed: int = 0) -> pd.DataFrame:
    """Four rows of each entity; who ordered long ago churns more often."""
    generator = np.random.default_rng(seed)
    count = entities * 4
    rows = pd.DataFrame({name: generator.gamma(2.0, 20.0, count) for name in FEATURES})
    rows["user_id"] = np.repeat([f"u{i:04}" for i in range(entities)], 4)
    rows["label"] = generator.random(count) < 1 / (1 + np.exp(4 - rows["recency_days"] / 20))
    return rows


def test_features_are_rounded_as_the_server_rounds_them() -> None:
    rows = frame(3)
    found = fitting.matrix(rows, FEATURES)
    assert found.dtype == np.float64
    assert np.array_equal(found, found.astype(np.float32))
    assert not np.array_equal(found, rows[list(FEATURES)].to_numpy())


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_calibration_mends_scores_by_entities_held_out(method) -> None:
    rows, later = frame(), frame(seed=1)
    # Weights that make the classes equal spoil the probabilities: what calibration is to mend.
    project = replace(PROJECT, estimator="espalier.training.fitting_test:balanced")
    errors = {}
    for calibration in ("none", method):
        model = fitting.fit(project, project.estimator, rows, {}, calibration)
        scores = fitting.score(project, model, later)
        errors[calibration] = evaluate.metrics(fitting.target(later), scores)["calibration_error"]
    assert errors["none"] > 0.1
    assert errors[method] < errors["none"] / 2


def test_each_entity_is_calibrated_by_a_fit_without_it() -> None:
    rows = frame(60)
    model = fitting.fit(PROJECT, PROJECT.estimator, rows, {}, "sigmoid")
    ((_, calibrated),) = model.steps
    assert isinstance(calibrated, CalibratedClassifierCV)
    held = np.concatenate([test for _, test in calibrated.cv])
    assert sorted(held) == list(range(len(rows)))
    for train, test in calibrated.cv:
        assert not set(rows["user_id"].iloc[train]) & set(rows["user_id"].iloc[test])


def test_a_calibrated_pipeline_scores_the_same_in_onnx() -> None:
    rows = frame()
    matrix = fitting.matrix(rows, FEATURES)
    model = fitting.fit(PROJECT, PROJECT.estimator, rows, {}, "sigmoid")
    content = onnx_export.to_onnx(model, onnx_export.finite_row(matrix), name="test")
    assert onnx_export.compare(content, model, onnx_export.planted(matrix, 0)).holds


def test_the_threshold_is_chosen_for_the_declared_objective_and_repeatable() -> None:
    rows = frame()
    threshold = fitting.choose_threshold(PROJECT, rows)
    assert threshold == fitting.choose_threshold(PROJECT, rows.sample(frac=1, random_state=3))
    costly = Decision(objective="cost", false_positive=20, false_negative=1)
    assert fitting.choose_threshold(replace(PROJECT, decision=costly), rows) > threshold + 0.1


@pytest.mark.parametrize("purpose", ["calibrate", "choose a threshold"])
def test_too_few_entities_are_refused(purpose) -> None:
    rows = frame(60)
    rows["label"] = rows["user_id"] == "u0000"
    attempt: Callable[[], object] = partial(fitting.choose_threshold, PROJECT, rows)
    if purpose == "calibrate":
        attempt = partial(fitting.fit, PROJECT, PROJECT.estimator, rows, {}, "sigmoid")
    with pytest.raises(CheckRefused, match=f"6[0-9]* entities are too few to {purpose}"):
        attempt()


def balanced(*, seed: int = 0):
    from churn.estimator import build

    return build(seed=seed).set_params(
        linear__model__class_weight="balanced", trees__model__class_weight="balanced"
    )


@pytest.mark.parametrize(
    ("project", "estimator", "told"),
    [
        (DIABETES, "linear_classifier", "which is no regressor; label target is regression"),
        (CANCER, "mean", "which is no classifier; label target is binary: build a classifier"),
    ],
)
def test_an_estimator_of_another_kind_is_refused(project, estimator, told) -> None:
    reference = f"espalier.training.testing_tasks:{estimator}"
    with pytest.raises(ConfigurationError, match=told):
        fitting.fit(project, reference, testing_tasks.frame(project))
