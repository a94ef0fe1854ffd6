from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics as reference

from espalier.policies import METRICS
from espalier.project import Task
from espalier.training import evaluate
from espalier.training.multiclass import MulticlassEvaluation, class_table

CLASSES = ("a", "b", "c", "d")


def sample(seed: int = 0, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Labels of four classes and probabilities that know something of them, some equal."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(4, count, p=[0.4, 0.3, 0.2, 0.1])
    raw = np.round(generator.random((count, 4)) + 0.7 * np.eye(4)[labels], 1) + 0.01
    return labels, raw / raw.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_are_those_of_scikit_learn(weighted: bool) -> None:
    labels, scores = sample()
    weights = np.ones(len(labels))
    if weighted:
        weights = np.random.default_rng(1).integers(0, 4, len(labels)).astype(float)
    found = MulticlassEvaluation(labels, scores).metrics(weights)
    assert tuple(found) == METRICS["multiclass"]
    told: dict[str, Callable[..., float]] = {
        "accuracy": lambda **w: reference.accuracy_score(labels, scores.argmax(axis=1), **w),
        "balanced_accuracy": lambda **w: reference.balanced_accuracy_score(
            labels, scores.argmax(axis=1), **w
        ),
        "macro_f1": lambda **w: reference.f1_score(
            labels, scores.argmax(axis=1), average="macro", **w
        ),
        "log_loss": lambda **w: reference.log_loss(labels, scores, **w),
        "roc_auc": lambda **w: reference.roc_auc_score(
            labels, scores, multi_class="ovr", average="macro", **w
        ),
        "brier": lambda **w: reference.brier_score_loss(labels, scores, **w),
    }
    for name, function in told.items():
        assert found[name] == pytest.approx(function(sample_weight=weights), abs=1e-9), name


def test_weights_are_repeated_rows_also_when_a_class_has_none() -> None:
    labels, scores = sample(count=60)
    weights = np.random.default_rng(2).integers(0, 3, len(labels)) * (labels != 3)
    rows = np.repeat(np.arange(len(labels)), weights)
    names = [name for name in METRICS["multiclass"] if name != "roc_auc"]
    found = MulticlassEvaluation(labels, scores).metrics(weights.astype(float), names)
    with warnings.catch_warnings():
        # Of a predicted class that no row has.
        warnings.simplefilter("ignore")
        balanced = reference.balanced_accuracy_score(labels[rows], scores[rows].argmax(axis=1))
        f1 = reference.f1_score(labels[rows], scores[rows].argmax(axis=1), average="macro")
    assert found["balanced_accuracy"] == pytest.approx(balanced)
    assert found["macro_f1"] == pytest.approx(f1)
    assert found["brier"] == pytest.approx(
        reference.brier_score_loss(labels[rows], scores[rows], labels=range(4))
    )
    ranked = MulticlassEvaluation(labels, scores).metrics(weights.astype(float), ["roc_auc"])
    assert np.isnan(ranked["roc_auc"])


def test_labels_may_be_names() -> None:
    labels, scores = sample()
    names = np.array(CLASSES, dtype=object)[labels]
    by_name = evaluate.metrics(names, scores, task=Task.MULTICLASS, classes=CLASSES)
    assert by_name == evaluate.metrics(labels, scores, task=Task.MULTICLASS)
    assert evaluate.places(np.array(["d", "e"]), CLASSES).tolist() == [3, -1]


def test_draws_are_shared_and_paired() -> None:
    labels, scores = sample()
    drawn = evaluate.bootstrap(
        labels,
        {"a": scores, "b": scores.copy()},
        names=["log_loss", "roc_auc"],
        seed=3,
        draws=50,
        task=Task.MULTICLASS,
    )
    assert np.array_equal(drawn["a"]["log_loss"], drawn["b"]["log_loss"])
    own = evaluate.interval(drawn["a"]["roc_auc"])
    assert own.low < evaluate.metrics(labels, scores, task=Task.MULTICLASS)["roc_auc"] < own.high


def test_the_table_has_precision_and_recall_of_each_class() -> None:
    labels, scores = sample()
    precision, recall, _, support = reference.precision_recall_fscore_support(
        labels, scores.argmax(axis=1)
    )
    for place, (name, rows, ours, found) in enumerate(class_table(labels, scores, CLASSES)):
        assert (name, rows) == (CLASSES[place], support[place])
        assert ours == pytest.approx(precision[place])
        assert found == pytest.approx(recall[place])
