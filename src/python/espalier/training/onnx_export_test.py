from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    VotingRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from churn import estimator as churn_estimator
from churn.project import PROJECT
from espalier.registry.manifest import TOLERANCE
from espalier.training import onnx_export
from espalier.training.onnx_export import NotConvertibleError, Parity, finite_row

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


def convert(model: object, rows: np.ndarray) -> bytes:
    return onnx_export.to_onnx(model, finite_row(rows), name="test")


def parity(model: object, rows: np.ndarray) -> Parity:
    return onnx_export.compare(convert(model, rows), model, onnx_export.planted(rows, 0))


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=500)),
        HistGradientBoostingClassifier(max_iter=20),
        make_pipeline(SimpleImputer(), RandomForestClassifier(20, max_depth=6, random_state=0)),
    ],
    ids=["linear", "boosted", "forest"],
)
def test_a_classifier_of_several_classes_scores_the_same(model, real) -> None:
    rows, _ = real
    filled = rows if isinstance(model, HistGradientBoostingClassifier) else np.nan_to_num(rows)
    cut = np.digitize(rows[:, 0], np.quantile(rows[:, 0], [0.3, 0.6, 0.9]))
    model.fit(filled[:, 1:], cut)
    content = convert(model, filled[:, 1:])
    found = onnx_export.compare(content, model, onnx_export.planted(filled[:, 1:], 0))
    assert found.holds, found
    assert (found.rows, found.limit) == (2 * len(rows), 1e-5)
    expected = model.predict_proba(filled[:5, 1:])
    assert expected.shape == (5, 4)
    assert onnx_export.score(content, filled[:5, 1:]) == pytest.approx(expected, abs=1e-5)
    # Another model of the same shape does not pass for it.
    other = clone(model).fit(filled[:, 1:], cut[::-1])
    assert not onnx_export.compare(content, other, filled[:, 1:]).holds


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(SimpleImputer(), StandardScaler(), Ridge()),
        HistGradientBoostingRegressor(max_iter=20),
        VotingRegressor(
            [
                ("a", make_pipeline(StandardScaler(), Ridge())),
                ("b", DecisionTreeRegressor(max_depth=4)),
            ]
        ),
    ],
    ids=["linear", "boosted", "mean of two"],
)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_regressor_gives_the_same_values(model, scale, real) -> None:
    rows, _ = real
    filled = np.nan_to_num(rows) if isinstance(model, VotingRegressor) else rows
    truth = scale * (filled[:, 0] + 100)
    model.fit(filled[:, 1:], truth)
    content = convert(model, filled[:, 1:])
    found = onnx_export.compare(content, model, onnx_export.planted(filled[:, 1:], 0))
    assert found.holds, found
    assert found.limit == pytest.approx(1e-5 * np.abs(model.predict(filled[:, 1:])).max(), rel=0.5)
    assert onnx_export.ends(content) == ({"features": len(FEATURES) - 1}, {"value"})
    values = onnx_export.score(content, filled[:5, 1:])
    assert values == pytest.approx(model.predict(filled[:5, 1:]), rel=1e-4)
    other = clone(model).fit(filled[:, 1:], truth[::-1])
    assert not onnx_export.compare(content, other, filled[:, 1:]).holds


def test_planted_rows_have_one_odd_value_each_in_every_column(real) -> None:
    rows, _ = real
    planted = onnx_export.planted(rows, 0)
    assert planted.shape == (2 * len(rows), rows.shape[1])
    assert np.array_equal(planted[: len(rows)], rows, equal_nan=True)
    odd = planted[len(rows) :]
    changed = ~((odd == rows) | (np.isnan(odd) & np.isnan(rows)))
    assert set(changed.sum(axis=1)) <= {0, 1}
    for kind in (np.isposinf, np.isneginf, np.isnan):
        assert kind(odd).any(axis=0).all()


@pytest.mark.parametrize(
    "model",
    [
        HistGradientBoostingClassifier(max_iter=30, random_state=0),
        churn_estimator.build(seed=1),
        churn_estimator.build(seed=1, interactions=True, c=0.01),
        churn_estimator.recency_only(seed=1),
    ],
    ids=["trees", "churn", "interactions", "baseline"],
)
def test_a_model_scores_and_labels_the_same_with_missing_and_infinite_values(real, model) -> None:
    rows, labels = real
    model.fit(rows, labels)
    found = parity(model, rows)
    assert found.holds
    assert found.example == ""
    assert found.rows == 2 * 2357
    assert 0 < found.largest < TOLERANCE
    # Not a constant: parity of one would prove little.
    assert np.ptp(onnx_export.score(convert(model, rows), rows)) > 0.3


def test_what_scikit_learn_refuses_is_no_number_in_onnx(real) -> None:
    rows, labels = real
    model = churn_estimator.build().fit(rows, labels)
    row = finite_row(rows)[np.newaxis]
    assert np.isfinite(row).all()
    refused = onnx_export.refused(model, row[0])
    # An imputer takes what is missing; tenure is not used, so nothing looks at it.
    assert not refused.missing.any()
    assert [FEATURES[i] for i in np.flatnonzero(~refused.infinite)] == ["tenure_days"]
    infinite = row.copy()
    infinite[0, FEATURES.index("spend_90d")] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        model.predict_proba(infinite)
    unused = row.copy()
    unused[0, FEATURES.index("tenure_days")] = -np.inf
    scores = onnx_export.score(convert(model, rows), np.concatenate([row, infinite, unused]))
    assert np.isnan(scores).tolist() == [False, True, False]
    assert scores[0] == scores[2]
    # Without an imputer what is missing is refused too.
    plain = LogisticRegression(max_iter=5000).fit(np.nan_to_num(rows), labels)
    assert onnx_export.refused(plain, row[0]).missing.all()
    assert parity(plain, rows).holds


def test_the_graph_keeps_the_contract_with_the_server(real) -> None:
    rows, labels = real
    content = convert(churn_estimator.build().fit(rows, labels), rows)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("features", "tensor(float)", [None, 11])
    outputs = {o.name: (o.type, o.shape) for o in session.get_outputs()}
    assert outputs == {
        "label": ("tensor(int64)", [None]),
        "probabilities": ("tensor(float)", [None, 2]),
    }
    assert onnx_export.ends(content) == ({"features": 11}, {"label", "probabilities"})
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
    convert(model, rows)
    assert _container.make_node is before
    with pytest.raises(ValueError, match="Unable to create node"):
        convert_sklearn(model, "t", [("features", FloatTensorType([None, rows.shape[1]]))])


def test_another_models_graph_does_not_hold(real) -> None:
    rows, labels = real
    filled = np.nan_to_num(rows)
    model = LogisticRegression(max_iter=5000).fit(filled, labels)
    other = LogisticRegression(C=1e-3, max_iter=5000).fit(-filled, labels)
    found = onnx_export.compare(convert(other, rows), model, filled)
    assert not found.holds
    assert found.scores > 1000
    assert 0 < found.labels <= found.scores
    assert found.largest > 0.1
    assert found.example.startswith("row 0: 0.")


def test_a_score_in_one_of_both_alone_does_not_hold(real) -> None:
    rows, labels = real
    trees = HistGradientBoostingClassifier(max_iter=2, random_state=0).fit(rows, labels)
    linear = LogisticRegression(max_iter=5000).fit(np.nan_to_num(rows), labels)
    # Trees take what is missing, the linear graph does not.
    assert onnx_export.compare(convert(linear, rows), trees, rows).scores > 0
    missing = rows[np.isnan(rows).any(axis=1)]
    assert onnx_export.compare(convert(trees, rows), linear, missing).scores == len(missing)


class Guess(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """A classifier that no converter knows."""

    def fit(self, _rows: np.ndarray, labels: np.ndarray) -> Guess:
        self.classes_ = np.unique(labels)
        return self


def test_what_does_not_convert_is_told_in_one_line(real) -> None:
    rows, labels = real
    with pytest.raises(NotConvertibleError, match="Guess has no ONNX form") as told:
        convert(Guess().fit(rows, labels), rows)
    assert "\n" not in str(told.value)
