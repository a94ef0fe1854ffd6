from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from espalier.policies import Decision
from espalier.training import evaluate
from espalier.training.binary import BinaryEvaluation, best_threshold, decision_metrics


def sample(seed: int = 0, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of which many are equal, some of them 0 or 1."""
    generator = np.random.default_rng(seed)
    labels = generator.random(count) < 0.7
    scores = np.round(np.clip(generator.normal(0.4 + 0.2 * labels, 0.3), 0, 1), 2)
    return labels, scores


def test_metrics_are_those_of_hand_calculation() -> None:
    labels = np.array([True, False, True, False])
    scores = np.array([0.9, 0.8, 0.8, 0.1])
    found = evaluate.metrics(labels, scores)
    # Pairs of a positive and a negative row: right, right, a tie, right.
    assert found["roc_auc"] == pytest.approx(3.5 / 4)
    # Half of the recall at precision 1, the other half, with the tie, at 2/3.
    assert found["pr_auc"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found["brier"] == pytest.approx((0.01 + 0.64 + 0.04 + 0.01) / 4)
    assert found["log_loss"] == pytest.approx(
        -(math.log(0.9) + math.log(0.2) + math.log(0.8) + math.log(0.9)) / 4
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_are_those_of_scikit_learn(weighted: bool) -> None:
    labels, scores = sample()
    weights = np.random.default_rng(1).integers(0, 4, len(labels)).astype(float)
    if not weighted:
        weights = np.ones(len(labels))
    found = BinaryEvaluation(labels, scores).metrics(weights)
    for name, function in {
        "roc_auc": reference.roc_auc_score,
        "pr_auc": reference.average_precision_score,
        "brier": reference.brier_score_loss,
        "log_loss": reference.log_loss,
    }.items():
        assert found[name] == pytest.approx(
            function(labels, scores, sample_weight=weights), abs=1e-12
        ), name


def test_calibration_error_is_the_mean_distance_of_groups() -> None:
    # Ten groups of ten equal scores; in each the share of positives is 0.1 below the score, but
    # for the first, whose is 0.1 above.
    scores = np.repeat(np.linspace(0.15, 0.95, 10), 10)
    shares = np.unique(scores) - 0.1
    shares[0] += 0.2
    labels = np.concatenate([np.arange(10) < round(10 * share) for share in shares])
    exact = np.concatenate([np.full(10, labels[i * 10 : i * 10 + 10].mean()) for i in range(10)])
    found = evaluate.metrics(labels, np.clip(exact + 0.1, 0, 1))
    assert evaluate.metrics(labels, exact)["calibration_error"] == pytest.approx(0)
    assert found["calibration_error"] == pytest.approx(0.1)
    constant = evaluate.metrics(labels, np.full(100, 0.3))["calibration_error"]
    assert constant == pytest.approx(abs(labels.mean() - 0.3))


def test_weights_are_repeated_rows() -> None:
    labels, scores = sample(count=60)
    weights = np.random.default_rng(2).integers(0, 4, len(labels))
    rows = np.repeat(np.arange(len(labels)), weights)
    weighted = BinaryEvaluation(labels, scores).metrics(
        weights.astype(float), ["lift_10", "roc_auc"]
    )
    repeated = evaluate.metrics(labels[rows], scores[rows])
    for name, value in weighted.items():
        assert value == pytest.approx(repeated[name]), name


def test_lift_is_that_of_the_highest_tenth() -> None:
    scores = np.arange(100) / 100
    labels = np.zeros(100, dtype=bool)
    labels[[99, 98, 97, 50, 20]] = True
    assert evaluate.metrics(labels, scores)["lift_10"] == pytest.approx((3 / 10) / (5 / 100))
    # When all are equal, no tenth is better than another.
    assert evaluate.metrics(labels, np.full(100, 0.5))["lift_10"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("decision", "value"),
    [
        (Decision(objective="f1"), reference.f1_score),
        (
            Decision(objective="cost", false_positive=5, false_negative=1),
            lambda labels, chosen: -(5 * (chosen & ~labels).sum() + (~chosen & labels).sum()),
        ),
    ],
)
def test_threshold_is_the_best_for_its_objective(decision, value) -> None:
    labels, scores = sample()
    threshold = best_threshold(labels, scores, decision)
    best = max(value(labels, scores >= t) for t in np.linspace(-0.005, 1.005, 102))
    assert value(labels, scores >= threshold) == pytest.approx(best)


def test_a_cost_may_say_all_or_none() -> None:
    labels, scores = np.array([True, False, True]), np.array([0.9, 0.8, 0.7])
    none = Decision(objective="cost", false_positive=100, false_negative=1)
    everyone = Decision(objective="cost", false_positive=1, false_negative=100)
    assert best_threshold(~labels, scores, none) > 0.9
    assert best_threshold(labels, scores, everyone) < 0.7


def test_a_draw_of_one_class_has_no_auc_and_is_left_out_of_the_interval() -> None:
    labels = np.array([True, False])
    found = BinaryEvaluation(labels, np.array([0.6, 0.4])).metrics(np.array([2.0, 0.0]))
    assert math.isnan(found["roc_auc"])
    assert found["brier"] == pytest.approx(0.16)
    assert evaluate.interval(np.array([math.nan, 1.0, 1.0])) == evaluate.Interval(1.0, 1.0)


def test_bootstrap_is_seeded_and_pairs_the_models() -> None:
    labels, scores = sample()
    given = {"a": scores, "b": scores, "c": 1 - scores}
    drawn = evaluate.bootstrap(labels, given, names=["roc_auc"], seed=3, draws=50)
    again = evaluate.bootstrap(labels, given, names=["roc_auc"], seed=3, draws=50)
    other = evaluate.bootstrap(labels, given, names=["roc_auc"], seed=4, draws=50)
    assert np.array_equal(drawn["a"]["roc_auc"], drawn["b"]["roc_auc"])
    # On the same rows the reverse order has the complement.
    assert drawn["a"]["roc_auc"] + drawn["c"]["roc_auc"] == pytest.approx(np.ones(50))
    assert np.array_equal(drawn["a"]["roc_auc"], again["a"]["roc_auc"])
    assert not np.array_equal(drawn["a"]["roc_auc"], other["a"]["roc_auc"])
    assert np.unique(drawn["a"]["roc_auc"]).size > 40


def test_intervals_have_the_width_that_theory_gives() -> None:
    generator = np.random.default_rng(0)
    labels = generator.random(2000) < 0.5
    scores = np.where(labels, 0.75, 0.25)
    scores[:400] = 1 - scores[:400]
    # A row's squared error is 1/16 or 9/16; the mean's standard error is that of a share of 0.2.
    error = 0.5 * math.sqrt(0.2 * 0.8 / 2000)
    drawn = evaluate.bootstrap(labels, {"m": scores}, names=["brier"], seed=0)["m"]["brier"]
    found = evaluate.interval(drawn)
    middle = evaluate.metrics(labels, scores)["brier"]
    assert middle == pytest.approx(0.2 * 9 / 16 + 0.8 / 16)
    assert found.low == pytest.approx(middle - 1.96 * error, rel=0.02)
    assert found.high == pytest.approx(middle + 1.96 * error, rel=0.02)


def test_threshold_has_the_best_balanced_accuracy() -> None:
    labels = np.array([False, False, True, False, False, True, True])
    scores = np.array([0.1, 0.2, 0.3, 0.35, 0.4, 0.6, 0.9])
    # Between 0.4 and 0.6: recall 2/3, specificity 1. Between 0.2 and 0.3: recall 1, specificity 1/2.
    assert best_threshold(labels, scores) == pytest.approx(0.5)
    labels, scores = sample()
    threshold = best_threshold(labels, scores)
    best = max(
        reference.balanced_accuracy_score(labels, scores >= t) for t in np.linspace(0, 1.01, 405)
    )
    found = decision_metrics(labels, scores, threshold)
    assert found["balanced_accuracy"] == pytest.approx(best)
    assert found["precision"] == pytest.approx(
        reference.precision_score(labels, scores >= threshold)
    )
    assert found["recall"] == pytest.approx(reference.recall_score(labels, scores >= threshold))
    assert found["predicted_share"] == pytest.approx((scores >= threshold).mean())


def test_equal_scores_leave_one_threshold() -> None:
    labels = np.array([True, False])
    assert best_threshold(labels, np.array([0.5, 0.5])) == 0.5
