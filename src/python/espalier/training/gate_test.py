from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from churn.project import PROJECT
from espalier.policies import Gate, Slice
from espalier.project import Task
from espalier.training import gate, slices
from espalier.training.comparison import Comparison, compare
from espalier.training.gate import PASSED, REFUSED, SKIPPED, Verdict
from espalier.training.online_parity import OnlineParity

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.random(1500) < 0.8
# Scores that know the label through more and more noise.
GOOD, FAIR, POOR = (
    1 / (1 + np.exp(-(LABELS + GENERATOR.normal(0, noise, len(LABELS))))) for noise in (1, 1.3, 3)
)
AGAINST = "champion 1"


def versus(challenger: np.ndarray, opponent: np.ndarray, **limits: object) -> Comparison:
    limit = Gate(**limits)  # type: ignore[arg-type]  # checked by the gate itself
    return compare(LABELS, challenger, opponent, gate=limit, seed=0)


def verdict_of(found: Comparison, margin: float = 0.01) -> str:
    return gate.comparison(found, AGAINST, Gate(margin=margin)).verdict


def test_a_worse_challenger_is_refused() -> None:
    found = versus(POOR, GOOD)
    check = gate.comparison(found, AGAINST, Gate())
    assert check.verdict == REFUSED
    assert found.difference < found.high < 0
    assert check.value == found.low
    assert "of champion 1 on 1500 rows" in check.reason
    assert "below the margin of -0.0100" in check.reason


def test_an_equal_challenger_is_accepted() -> None:
    found = versus(FAIR, FAIR)
    assert verdict_of(found, margin=0.0) == PASSED
    assert (found.low, found.difference, found.high) == (0, 0, 0)


def test_a_better_challenger_is_accepted() -> None:
    found = versus(GOOD, POOR)
    assert verdict_of(found, margin=0.0) == PASSED
    assert 0 < found.low < found.difference < found.high


def test_the_interval_decides_and_not_the_difference() -> None:
    # Hardly worse on these rows, but they cannot exclude that it is worse by more than the margin.
    challenger = np.where(GENERATOR.random(len(LABELS)) < 0.3, POOR, FAIR)
    worse = versus(challenger, FAIR)
    assert verdict_of(worse, -worse.difference + 0.001) == REFUSED
    assert verdict_of(worse, -worse.low + 0.001) == PASSED


def test_the_interval_is_narrower_paired_than_the_models_own() -> None:
    nearly = FAIR + GENERATOR.normal(0, 0.01, len(FAIR))
    paired, unpaired = versus(nearly, FAIR), versus(FAIR, FAIR[::-1])
    assert paired.high - paired.low < (unpaired.high - unpaired.low) / 3


def test_the_comparison_is_repeatable() -> None:
    found = versus(GOOD, FAIR, metric="pr_auc", confidence=0.9)
    assert found == versus(GOOD, FAIR, metric="pr_auc", confidence=0.9)
    assert found.low > versus(GOOD, FAIR, metric="pr_auc", confidence=0.99).low


def test_of_a_metric_that_falls_when_models_improve_the_difference_is_turned_round() -> None:
    found = versus(GOOD, FAIR, metric="brier")
    assert found.challenger < found.opponent
    assert found.difference == pytest.approx(found.opponent - found.challenger)
    assert 0 < found.low < found.difference < found.high
    check = gate.comparison(found, AGAINST, Gate(metric="brier", margin=0.0))
    assert check.verdict == PASSED
    assert check.reason.startswith("brier (lower is better) 0.")
    assert verdict_of(versus(POOR, GOOD, metric="brier"), margin=0.01) == REFUSED


def test_numbers_are_compared_by_what_they_explain() -> None:
    truth = GENERATOR.normal(50, 10, 300)
    near, far = truth + GENERATOR.normal(0, 5, 300), np.full(300, 50.0)
    found = compare(truth, near, far, gate=Gate(), seed=0, task=Task.REGRESSION)
    assert found.metric == "r2"
    assert found.challenger == pytest.approx(0.75, abs=0.1)
    assert found.low > 0.5
    check = gate.leakage(0.995, {"next_price": 0.9}, Gate(), Task.REGRESSION)
    assert check.verdict == REFUSED
    assert check.reason.startswith("R² 0.9950 is above 0.99")


def segmented(challenger: np.ndarray, **limits: object) -> list[gate.Check]:
    """The checks of two slices: half of the rows, and six rows."""
    project = replace(
        PROJECT,
        slices=(
            Slice(name="half", feature="recency_days", maximum=len(LABELS) // 2),
            Slice(name="few", feature="recency_days", minimum=0, maximum=6),
        ),
        gate=Gate(**limits),  # type: ignore[arg-type]  # checked by the gate itself
    )
    rows = pd.DataFrame({"recency_days": np.arange(len(LABELS), dtype=float), "label": LABELS})
    return gate.slices(slices.measure(project, rows, challenger, GOOD), AGAINST, project.gate)


def test_a_slice_that_collapses_is_refused_though_the_whole_may_pass() -> None:
    collapsed = GOOD.copy()
    half = len(LABELS) // 2
    collapsed[:half] = GENERATOR.permutation(GOOD[:half])
    half_check, few = segmented(collapsed)
    assert half_check.name == "slice half"
    assert half_check.verdict == REFUSED
    assert "a collapse by the slice margin of -0.0500" in half_check.reason
    assert half_check.value is not None
    assert half_check.value < -0.2
    assert few.verdict == SKIPPED
    assert "30 are needed" in few.reason
    # The other half is as good as ever.
    other = GOOD.copy()
    other[half:] = GENERATOR.permutation(GOOD[half:])
    assert segmented(other)[0].verdict == PASSED


def test_only_the_named_slices_gate() -> None:
    assert segmented(GOOD, slices=()) == []
    assert [check.name for check in segmented(GOOD, slices=("half",))] == ["slice half"]


def test_slices_are_half_open_and_leave_out_what_is_missing() -> None:
    values = np.array([0.0, 1.0, 2.0, math.nan, math.inf])
    inside = slices.contains(Slice(name="s", feature="f", minimum=1, maximum=2), values)
    assert inside.tolist() == [False, True, False, False, False]
    inside = slices.contains(Slice(name="s", feature="f", minimum=1), values)
    assert inside.tolist() == [False, True, True, False, False]


def test_what_is_too_good_names_the_feature_to_look_at() -> None:
    importance = {"future_orders": 0.4, "recency_days": 0.01}
    check = gate.leakage(0.997, importance, Gate())
    assert check.verdict == REFUSED
    assert "look at future_orders" in check.reason
    assert gate.leakage(0.97, importance, Gate()).verdict == PASSED


def test_online_features_are_judged_or_skipped_with_a_reason() -> None:
    assert gate.online(OnlineParity(skipped="nothing is online yet")).verdict == SKIPPED
    differing = gate.online(OnlineParity(compared=9, differing=1, example="x is 1 online"))
    assert (differing.verdict, differing.value) == (REFUSED, 1)
    assert differing.reason == "1 of 9 entities differ: x is 1 online"
    assert gate.online(OnlineParity(compared=9)).verdict == PASSED


def test_a_verdict_tells_every_refusal_and_is_json() -> None:
    found = versus(POOR, GOOD)
    checks = (
        gate.comparison(found, AGAINST, Gate()),
        gate.leakage(0.999, {"f": 0.1}, Gate()),
        gate.online(OnlineParity(skipped="nothing is online yet")),
    )
    verdict = Verdict(AGAINST, found, checks)
    assert not verdict.accepted
    assert verdict.reason.startswith("comparison: roc_auc")
    assert "; leakage: ROC-AUC 0.9990 is above" in verdict.reason
    evidence = json.loads(json.dumps(verdict.evidence(), allow_nan=False))
    assert evidence["opponent"] == AGAINST
    assert evidence["comparison"]["rows"] == 1500
    assert [check["verdict"] for check in evidence["checks"]] == [REFUSED, REFUSED, SKIPPED]
    passed = Verdict(AGAINST, found, checks[2:])
    assert passed.accepted
