from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from churn import estimator as churn_estimator
from churn.project import PROJECT
from espalier.errors import CheckRefused
from espalier.training import onnx_export

SEEDS = Path("data/seeds/churn")
FEATURES = list(PROJECT.view.features)


@pytest.fixture(scope="module")
def real() -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of 1997-03-31, the features with missing values."""
    folder = SEEDS / "month_000"
    features = pd.read_csv(folder / "features.csv", dtype={"user_id": str})
    labels = pd.read_csv(folder / "labels.csv", dtype={"user_id": str})
    joined = labels.merge(
        features, left_on=["user_id", "label_date"], right_on=["user_id", "feature_date"]
    )
    rows = joined[FEATURES].to_numpy(dtype=np.float32).astype(np.float64)
    assert len(rows) == 2357
    assert np.isnan(rows).any()
    return rows, joined["label_value"].to_numpy().astype(np.int64)


def infinite(rows: np.ndarray) -> np.ndarray:
    """The rows, and some of them again with infinities in each column in turn."""
    extra = []
    for column in range(rows.shape[1]):
        for value in (np.inf, -np.inf, np.nan):
            changed = rows[:20].copy()
            changed[:, column] = value
            extra.append(changed)
    return np.concatenate([rows, *extra])


def test_a_tree_ensemble_scores_the_same_with_missing_and_infinite_values(real) -> None:
    rows, labels = real
    model = HistGradientBoostingClassifier(max_iter=30, random_state=0).fit(rows, labels)
    content = onnx_export.to_onnx(model, rows.shape[1], name="trees")
    assert onnx_export.check_parity(content, model, infinite(rows)) < onnx_export.TOLERANCE


@pytest.mark.parametrize("build", [churn_estimator.build, churn_estimator.recency_only])
def test_the_products_own_models_score_the_same(real, build) -> None:
    rows, labels = real
    model = build(seed=1).fit(rows, labels)
    content = onnx_export.to_onnx(model, rows.shape[1], name="churn")
    assert onnx_export.check_parity(content, model, rows) < onnx_export.TOLERANCE
    # Not a constant: parity of one would prove little.
    assert np.ptp(onnx_export.score(content, rows)) > 0.3


def test_the_graph_keeps_the_contract_with_the_server(real) -> None:
    rows, labels = real
    model = churn_estimator.build().fit(rows, labels)
    content = onnx_export.to_onnx(model, rows.shape[1], name="churn")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("features", "tensor(float)", [None, 11])
    outputs = {o.name: (o.type, o.shape) for o in session.get_outputs()}
    assert outputs == {
        "label": ("tensor(int64)", [None]),
        "probabilities": ("tensor(float)", [None, 2]),
    }
    domains = [entry.domain for entry in onnx.load_from_string(content).opset_import]
    assert len(domains) == len(set(domains))


def test_the_adapter_is_needed_and_leaves_no_trace(real) -> None:
    """When this fails because the conversion works without it, the adapter can go."""
    from skl2onnx import convert_sklearn  # what the adapter works around
    from skl2onnx.common import _container
    from skl2onnx.common.data_types import FloatTensorType

    rows, labels = real
    before = _container.make_node
    model = HistGradientBoostingClassifier(max_iter=2, random_state=0).fit(rows, labels)
    onnx_export.to_onnx(model, rows.shape[1], name="trees")
    assert _container.make_node is before
    with pytest.raises(ValueError, match="Unable to create node"):
        convert_sklearn(model, "t", [("features", FloatTensorType([None, rows.shape[1]]))])


def test_another_models_graph_is_refused(real) -> None:
    rows, labels = real
    model = LogisticRegression(max_iter=5000).fit(np.nan_to_num(rows), labels)
    other = LogisticRegression(C=1e-3, max_iter=5000).fit(np.nan_to_num(rows), labels)
    content = onnx_export.to_onnx(other, rows.shape[1], name="other")
    with pytest.raises(CheckRefused, match="rows otherwise than LogisticRegression"):
        onnx_export.check_parity(content, model, np.nan_to_num(rows))


def test_a_score_that_is_no_number_is_refused(real) -> None:
    rows, labels = real
    forest = RandomForestClassifier(5, random_state=0).fit(np.nan_to_num(rows), labels)
    linear = LogisticRegression(max_iter=5000).fit(np.nan_to_num(rows), labels)
    content = onnx_export.to_onnx(linear, rows.shape[1], name="linear")
    with pytest.raises(CheckRefused, match="against"):
        onnx_export.check_parity(content, forest, rows)


class Guess(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """A classifier that no converter knows."""

    def fit(self, _rows: np.ndarray, labels: np.ndarray) -> Guess:
        self.classes_ = np.unique(labels)
        return self


def test_what_does_not_convert_is_refused_in_one_line(real) -> None:
    rows, labels = real
    with pytest.raises(CheckRefused, match="Guess does not convert to ONNX") as refused:
        onnx_export.to_onnx(Guess().fit(rows, labels), rows.shape[1], name="guess")
    assert "\n" not in str(refused.value)
