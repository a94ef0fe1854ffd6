"""Churn's model and the baseline that it has to beat.

Both take rows of the feature view's columns in declared order, with NaN for null, and convert to
ONNX (columns are therefore chosen by position).
"""

from __future__ import annotations

from sklearn.base import TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import PolynomialFeatures, PowerTransformer, StandardScaler

from churn.project import PROJECT

# All customers first bought in one quarter, so tenure is a calendar: in the months to predict it
# lies outside of all that a model was trained on.
_UNUSED = frozenset({"tenure_days"})


# Which way churn can only go when a feature grows and the others stay.
_DIRECTION = {
    "recency_days": 1,
    "orders_total": -1,
    "orders_30d": -1,
    "orders_90d": -1,
    "spend_90d": -1,
}


def build(*, seed: int = 0, interactions: bool = False, c: float = 0.05) -> VotingClassifier:
    """The mean score of a logistic regression and of monotonic boosted trees, without tenure.

    No class weights: four of five customers churn, and weights would make scores no probabilities;
    the threshold answers for the imbalance.

    Mean over the ten label months from 1997-06-30 on, each predicted by labels at least 90 days
    older, of all customers: ROC-AUC 0.794 and Brier score 0.108; recency alone 0.779 and 0.122,
    logistic regression on recency, frequency and value 0.792 and 0.111, BG/NBD 0.781 and 0.109
    (benchmarks/churn_models.py has the intervals). Interactions gain up to 0.001 from the fourth
    month on, and lose much while the months to predict have recencies that those to train on have
    not, so the search decides.

    Args:
        seed: Of both.
        interactions: Whether the regression's features are made symmetric (Yeo and Johnson) and
            products of two of them added.
        c: The inverse strength of the regression's L2 penalty.
    """
    names = [name for name in PROJECT.view.features if name not in _UNUSED]
    prepare = [("power", PowerTransformer()), ("products", PolynomialFeatures(include_bias=False))]
    linear = _logistic(names, prepare if interactions else [], c=c, seed=seed)
    trees = HistGradientBoostingClassifier(
        max_iter=100,
        learning_rate=0.06,
        max_leaf_nodes=4,
        min_samples_leaf=100,
        monotonic_cst=[_DIRECTION.get(name, 0) for name in names],
        # Not a part of the rows put aside as soon as there are 10,000.
        early_stopping=False,
        random_state=seed,
    )
    columns = ColumnTransformer([("keep", "passthrough", _columns(names))])
    boosted = Pipeline([("features", columns), ("model", trees)])
    return VotingClassifier(
        [("linear", linear), ("trees", boosted)],
        voting="soft",
        # Of no effect on scores; the converter to ONNX wants it so.
        flatten_transform=False,
    )


def recency_only(*, seed: int = 0) -> Pipeline:
    """Logistic regression on the days since the last order: what one column can tell."""
    return _logistic(["recency_days"], [], c=0.1, seed=seed)


def _logistic(
    features: list[str], prepare: list[tuple[str, TransformerMixin]], *, c: float, seed: int
) -> Pipeline:
    steps = Pipeline(
        [
            # Customers with one order have no gap between orders; orders_total tells them apart.
            ("impute", SimpleImputer(strategy="median")),
            *prepare,
            ("scale", StandardScaler()),
        ]
    )
    return Pipeline(
        [
            ("features", ColumnTransformer([("prepare", steps, _columns(features))])),
            ("model", LogisticRegression(C=c, max_iter=1000, random_state=seed)),
        ]
    )


def _columns(features: list[str]) -> list[int]:
    return [PROJECT.view.features.index(name) for name in features]
