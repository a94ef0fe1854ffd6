"""How much a model's ranking rests on each feature."""

from __future__ import annotations

import numpy as np

from espalier.training import evaluate
from espalier.training.evaluate import Booleans, Floats
from espalier.training.onnx_export import Score

_ROWS, _REPEATS = 5_000, 5


def permutation_importance(
    score: Score, rows: Floats, labels: Booleans, features: tuple[str, ...], *, seed: int
) -> dict[str, float]:
    """How far the ROC-AUC falls when a feature's values change rows, the largest fall first.

    Breiman's permutation importance (2001): the mean of five seeded permutations, on at most 5,000
    rows. Features that tell the same share it, so one of them alone may look unimportant.

    Args:
        score: The model.
        rows: [n, f].
        labels: [n].
        features: The columns' names.
        seed: Of the permutations.
    """
    generator = np.random.default_rng(seed)
    if len(rows) > _ROWS:
        chosen = np.sort(generator.choice(len(rows), _ROWS, replace=False))
        rows, labels = rows[chosen], labels[chosen]
    ones = np.ones(len(labels))

    def auc(changed: Floats) -> float:
        return evaluate.Evaluation(labels, score(changed)).metrics(ones, ["roc_auc"])["roc_auc"]

    whole = auc(rows)
    falls: dict[str, float] = {}
    for column, name in enumerate(features):
        changed = rows.copy()
        values = []
        for _ in range(_REPEATS):
            changed[:, column] = generator.permutation(rows[:, column])
            values.append(whole - auc(changed))
        falls[name] = float(np.mean(values))
    return dict(sorted(falls.items(), key=lambda item: -item[1]))
