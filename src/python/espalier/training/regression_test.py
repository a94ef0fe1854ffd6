from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from espalier.policies import METRICS
from espalier.project import Task
from espalier.training import evaluate
from espalier.training.regression import RegressionEvaluation


def sample(count: int = 301) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.normal(50, 20, count)
    return labels, labels + generator.normal(1, 10, count)


def test_metrics_are_those_of_scikit_learn() -> None:
    labels, scores = sample()
    found = evaluate.metrics(labels, scores, task=Task.REGRESSION)
    assert tuple(found) == METRICS["regression"]
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(labels, scores))
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(labels, scores))
    assert found["r2"] == pytest.approx(reference.r2_score(labels, scores))
    assert found["median_absolute_error"] == pytest.approx(
        reference.median_absolute_error(labels, scores)
    )


@pytest.mark.parametrize("count", [60, 61])
def test_weights_are_repeated_rows(count: int) -> None:
    labels, scores = sample(count)
    weights = np.random.default_rng(2).integers(0, 4, count)
    rows = np.repeat(np.arange(count), weights)
    weighted = RegressionEvaluation(labels, scores).metrics(weights.astype(float))
    repeated = evaluate.metrics(labels[rows], scores[rows], task=Task.REGRESSION)
    for name, value in weighted.items():
        assert value == pytest.approx(repeated[name]), name


def test_equal_labels_have_nothing_to_explain() -> None:
    found = evaluate.metrics(np.full(3, 2.0), np.array([1.0, 2.0, 3.0]), task=Task.REGRESSION)
    assert np.isnan(found["r2"])
    assert found["mae"] == pytest.approx(2 / 3)
