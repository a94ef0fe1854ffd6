from __future__ import annotations

import json

import numpy as np
import pytest

from espalier.errors import ConfigurationError
from espalier.project import Gate
from espalier.training.gate import Verdict, decide

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.random(1500) < 0.8
# Scores that know the label through more and more noise.
GOOD, FAIR, POOR = (
    1 / (1 + np.exp(-(LABELS + GENERATOR.normal(0, noise, len(LABELS))))) for noise in (1, 1.3, 3)
)


def judge(challenger: np.ndarray, opponent: np.ndarray, **gate: object) -> Verdict:
    return decide(
        LABELS,
        challenger,
        opponent,
        gate=Gate(**gate),  # type: ignore[arg-type]  # checked by the gate itself
        against="champion 1",
        seed=0,
    )


def test_a_worse_challenger_is_refused() -> None:
    verdict = judge(POOR, GOOD)
    assert not verdict.accepted
    assert verdict.difference < verdict.high < 0
    assert "champion 1" in verdict.reason
    assert "below the margin of -0.0100" in verdict.reason


def test_an_equal_challenger_is_accepted() -> None:
    verdict = judge(FAIR, FAIR)
    assert verdict.accepted
    assert (verdict.low, verdict.difference, verdict.high) == (0, 0, 0)


def test_a_better_challenger_is_accepted() -> None:
    verdict = judge(GOOD, POOR)
    assert verdict.accepted
    assert 0 < verdict.low < verdict.difference < verdict.high


def test_the_interval_decides_and_not_the_difference() -> None:
    # Hardly worse on these rows, but they cannot exclude that it is worse by more than the margin.
    challenger = np.where(GENERATOR.random(len(LABELS)) < 0.3, POOR, FAIR)
    worse = judge(challenger, FAIR, margin=0.0)
    assert not judge(challenger, FAIR, margin=-worse.difference + 0.001).accepted
    assert judge(challenger, FAIR, margin=-worse.low + 0.001).accepted


def test_the_interval_is_narrower_paired_than_the_models_own() -> None:
    nearly = FAIR + GENERATOR.normal(0, 0.01, len(FAIR))
    verdict = judge(nearly, FAIR)
    unpaired = judge(FAIR, FAIR[::-1])
    assert verdict.high - verdict.low < (unpaired.high - unpaired.low) / 3


def test_the_verdict_is_repeatable_and_evidence_is_json() -> None:
    verdict = judge(GOOD, FAIR, metric="pr_auc", confidence=0.9)
    assert verdict == judge(GOOD, FAIR, metric="pr_auc", confidence=0.9)
    evidence = json.loads(json.dumps(verdict.evidence()))
    assert evidence["metric"] == "pr_auc"
    assert evidence["opponent"] == "champion 1"
    assert evidence["rows"] == 1500
    assert verdict.low > judge(GOOD, FAIR, metric="pr_auc", confidence=0.99).low


def test_a_metric_that_falls_when_models_improve_is_no_gate() -> None:
    with pytest.raises(ConfigurationError, match="brier"):
        judge(GOOD, FAIR, metric="brier")
