from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from churn import estimator
from churn.project import PROJECT

SEEDS = Path("data/seeds/churn")
FEATURES = list(PROJECT.view.features)


def batches(table: str) -> pd.DataFrame:
    """All batches of a table; one of them has no labels."""
    paths = sorted(SEEDS.glob(f"month_*/{table}.csv"))
    frames = [pd.read_csv(path, dtype={"user_id": str}) for path in paths]
    return pd.concat([frame for frame in frames if not frame.empty])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As training has it: threads for small sums wait for each other on a busy machine."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def labelled() -> pd.DataFrame:
    """The sample's labels with the features of the same day; no row changes once it is known."""
    return batches("labels").merge(
        batches("features"), left_on=["user_id", "label_date"], right_on=["user_id", "feature_date"]
    )


def score(build, rows: pd.DataFrame, day: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of one day, by a model of all labels at least 90 days older."""
    last = (pd.Timestamp(day) - PROJECT.label.horizon).date().isoformat()
    train, test = rows[rows["label_date"] <= last], rows[rows["label_date"] == day]
    model = build(seed=0).fit(train[FEATURES].to_numpy(), train["label_value"].to_numpy(bool))
    return test["label_value"].to_numpy(bool), model.predict_proba(test[FEATURES].to_numpy())[:, 1]


def test_the_model_ranks_better_than_recency_alone_on_average(labelled) -> None:
    days = sorted(labelled["label_date"].unique())
    days = [day for day in days if day >= "1997-06-30"]
    assert len(days) == 10
    gains = []
    for day in days:
        truth, model = score(estimator.build, labelled, day)
        _, baseline = score(estimator.recency_only, labelled, day)
        gains.append(roc_auc_score(truth, model) - roc_auc_score(truth, baseline))
    assert np.mean(gains) > 0.01
    assert min(gains) > 0


def test_missing_values_are_no_trouble_and_scores_are_repeatable(labelled) -> None:
    assert labelled[FEATURES].isna().to_numpy().any()
    truth, scores = score(estimator.build, labelled, "1997-12-31")
    assert np.isfinite(scores).all()
    assert 0.5 < truth.mean() < 1
    assert np.array_equal(scores, score(estimator.build, labelled, "1997-12-31")[1])


def test_tenure_is_not_used_and_the_baseline_uses_recency_alone(labelled) -> None:
    rows = labelled[labelled["label_date"] == "1997-03-31"]
    given, truth = rows[FEATURES].to_numpy(), rows["label_value"].to_numpy(bool)
    model = estimator.build().fit(given, truth)
    baseline = estimator.recency_only().fit(given, truth)
    for column, name in enumerate(FEATURES):
        changed = given.copy()
        changed[:, column] = np.nan_to_num(changed[:, column]) + 50
        moved = not np.array_equal(model.predict_proba(changed), model.predict_proba(given))
        assert moved is (name != "tenure_days"), name
        moved = not np.array_equal(baseline.predict_proba(changed), baseline.predict_proba(given))
        assert moved is (name == "recency_days"), name


def test_interactions_are_a_setting_of_the_regression_alone(labelled) -> None:
    rows = labelled[labelled["label_date"] == "1997-12-31"]
    given, truth = rows[FEATURES].to_numpy(), rows["label_value"].to_numpy(bool)
    plain = estimator.build().fit(given, truth)
    richer = estimator.build(interactions=True).fit(given, truth)
    columns = {len(model.estimators_[0].named_steps["model"].coef_[0]) for model in (plain, richer)}
    assert columns == {10, 10 + 10 * 11 // 2}
    trees = [model.estimators_[1].predict_proba(given)[:, 1] for model in (plain, richer)]
    assert np.array_equal(*trees)


def test_trees_never_lower_churn_for_a_longer_silence(labelled) -> None:
    rows = labelled[labelled["label_date"] == "1997-12-31"]
    given, truth = rows[FEATURES].to_numpy(), rows["label_value"].to_numpy(bool)
    trees = estimator.build().fit(given, truth).estimators_[1]
    silence = np.repeat(given[:50], 40, axis=0)
    silence[:, FEATURES.index("recency_days")] = np.tile(np.linspace(0, 400, 40), 50)
    scores = trees.predict_proba(silence)[:, 1].reshape(50, 40)
    assert (np.diff(scores, axis=1) >= 0).all()
    assert np.ptp(scores) > 0.3
