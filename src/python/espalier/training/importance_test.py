from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from espalier.training.evaluate import Floats
from espalier.training.importance import permutation_importance
from espalier.training.latency import one_row_milliseconds

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.normal(size=(6000, 3))
LABELS = GENERATOR.random(6000) < 1 / (1 + np.exp(-(3 * ROWS[:, 1] + ROWS[:, 0])))


def score(rows: npt.ArrayLike) -> Floats:
    given = np.asarray(rows, dtype=np.float64)
    return np.asarray(1 / (1 + np.exp(-(3 * given[:, 1] + given[:, 0]))))


def test_the_feature_that_the_score_rests_on_comes_first_and_the_unused_last() -> None:
    found = permutation_importance(score, ROWS, LABELS, ("some", "most", "none"), seed=0)
    assert list(found) == ["most", "some", "none"]
    assert found["most"] > 0.2
    assert found["most"] > 3 * found["some"] > 0
    assert found["none"] == 0
    assert found == permutation_importance(score, ROWS, LABELS, ("some", "most", "none"), seed=0)


def test_latency_is_the_median_of_one_row() -> None:
    seen: list[int] = []

    def slow(rows: npt.ArrayLike) -> Floats:
        seen.append(len(np.asarray(rows)))
        # A delay that is to be measured.
        time.sleep(0.1 if len(seen) % 10 == 0 else 0.002)
        return score(rows)

    spent = one_row_milliseconds(slow, ROWS)
    assert 2 <= spent < 20
    assert set(seen) == {1}
