"""Estimators that tests name: each has one real fault that the gate is to find."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from churn import estimator
from churn.project import PROJECT


def blind_to_one_time_buyers(*, seed: int = 0) -> Pipeline:
    """Uses what is alike for all customers with one order, so it cannot tell those apart."""
    columns = [PROJECT.view.features.index(name) for name in ("orders_total", "mean_gap_days")]
    steps = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    model = LogisticRegression(random_state=seed)
    return make_pipeline(ColumnTransformer([("prepare", steps, columns)]), model)


def calibrated_as_a_whole(*, seed: int = 0) -> CalibratedClassifierCV:
    """Scores otherwise in ONNX.

    scikit-learn calibrates a pipeline by its decision function, skl2onnx's graph by probabilities.
    """
    return CalibratedClassifierCV(estimator.recency_only(seed=seed), cv=3, ensemble=False)


def without_onnx(*, seed: int = 0, c: float = 0.1) -> Pipeline:
    """skl2onnx has no converter for a function, be it numpy's."""
    steps = make_pipeline(
        SimpleImputer(strategy="median"), FunctionTransformer(np.arcsinh), StandardScaler()
    )
    return Pipeline([("prepare", steps), ("model", _logistic(seed, c))])


def slow(*, seed: int = 0) -> Pipeline:
    """Many trees that are asked through scikit-learn, one after the other, for each row."""
    trees = HistGradientBoostingClassifier(
        max_iter=300, learning_rate=0.02, max_leaf_nodes=4, random_state=seed
    )
    return Pipeline([("prepare", FunctionTransformer(np.arcsinh)), ("model", trees)])


def _logistic(seed: int, c: float) -> Any:
    return LogisticRegression(C=c, max_iter=1000, random_state=seed)
