from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from espalier.monitoring import sketch
from espalier.monitoring.target import ClassLabels, Labels, rule_of, told

NUMBERS = sketch.of_values(np.arange(1.0, 1002.0))


def drawn(seed: int, shares: list[float], rows: int) -> ClassLabels:
    counts = np.random.default_rng(seed).multinomial(rows, shares)
    return ClassLabels(counts={f"c{place}": int(count) for place, count in enumerate(counts)})


def distance(one: ClassLabels, other: ClassLabels) -> float:
    names = sorted({**one.counts, **other.counts})
    return float(
        jensenshannon(
            [one.counts.get(name, 0) for name in names],
            [other.counts.get(name, 0) for name in names],
        )
    )


def test_two_classes_have_the_declared_threshold() -> None:
    labels = (Labels(rows=300, positives=200), Labels(rows=200, positives=150))
    assert rule_of(labels, None) == ("jensenshannon", 0.05)
    assert rule_of(labels, 0.1) == ("jensenshannon", 0.1)
    two = (drawn(1, [0.5, 0.5], 200), drawn(2, [0.5, 0.5], 200))
    assert rule_of(two, None) == ("jensenshannon", 0.05)


def test_numbers_have_that_of_a_feature() -> None:
    assert rule_of((NUMBERS, NUMBERS), None) == ("wasserstein", 0.2)
    assert rule_of((NUMBERS, NUMBERS), 0.4) == ("wasserstein", 0.4)


@pytest.mark.parametrize("classes", [3, 10, 30])
def test_chance_alone_moves_no_more_samples_of_many_classes_than_of_two(classes: int) -> None:
    def moved(shares: list[float]) -> float:
        found = []
        for seed in range(300):
            pair = (drawn(2 * seed, shares, 400), drawn(2 * seed + 1, shares, 400))
            found.append(distance(*pair) >= rule_of(pair, None)[1])
        return sum(found) / len(found)

    two = moved([0.5, 0.5])
    assert moved([1 / classes] * classes) <= two
    # Without the allowance nearly all of them would.
    pair = (drawn(1, [1 / 30] * 30, 400), drawn(2, [1 / 30] * 30, 400))
    assert distance(*pair) > 0.05


def test_a_class_that_moved_is_seen_among_many() -> None:
    even, moved = [0.1] * 10, [0.3] + [0.7 / 9] * 9
    pair = (drawn(1, even, 2000), drawn(2, moved, 2000))
    assert distance(*pair) >= rule_of(pair, None)[1]


def test_what_labels_are_like() -> None:
    labels = ClassLabels(counts={"a": 1, "b": 3})
    assert labels.rows == 4
    assert told(labels) == "shares of classes b 0.750, a 0.250"
    assert told(labels, short=True) == "b 0.750, a 0.250"
    assert told(Labels(rows=4, positives=1)) == "share of positive labels 0.250"
    assert told(NUMBERS) == "median label 501"
    assert not math.isnan(NUMBERS.spread)
