"""How much a model's predictions rest on each feature."""

from __future__ import annotations

import numpy as np

from espalier.project import Task
from espalier.training import evaluate
from espalier.training.evaluate import Floats, Labels
from espalier.training.onnx_export import Score

_ROWS, _REPEATS = 5_000, 5


def permutation_importance(
    score: Score,
    rows: Floats,
    labels: Labels,
    features: tuple[str, ...],
    *,
    seed: int,
    task: Task = Task.BINARY,
) -> dict[str, float]:
    """How far `main_metric` falls when a feature's values change rows, the largest fall first.

    Breiman's permutation importance (2001): the mean of five seeded permutations, on at most 5,000
    rows. Features that tell the same share it, so one of them alone may look unimportant.

    Args:
        score: The model.
        rows: [n, f].
        labels: [n].
        features: The columns' names.
        seed: Of the permutations.
        task: What is predicted.
    """
    metric = evaluate.main_metric(task)
    generator = np.random.default_rng(seed)
    if len(rows) > _ROWS:
        chosen = np.sort(generator.choice(len(rows), _ROWS, replace=False))
        rows, labels = rows[chosen], labels[chosen]
    ones = np.ones(len(labels))

    def measured(changed: Floats) -> float:
        return evaluate.evaluation(task, labels, score(changed)).metrics(ones, [metric])[metric]

    whole = measured(rows)
    falls: dict[str, float] = {}
    for column, name in enumerate(features):
        changed = rows.copy()
        values = []
        for _ in range(_REPEATS):
            changed[:, column] = generator.permutation(rows[:, column])
            values.append(whole - measured(changed))
        falls[name] = float(np.mean(values))
    return dict(sorted(falls.items(), key=lambda item: -item[1]))
