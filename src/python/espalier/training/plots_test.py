from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from espalier.project import Task
from espalier.training import plots


def test_calibration_groups_rows_of_similar_score() -> None:
    scores = np.repeat(np.linspace(0.05, 0.95, 10), 100)
    labels = np.concatenate([np.arange(100) < round(100 * s) for s in np.unique(scores)])
    mean, share = plots.calibration(labels, scores)
    assert mean == pytest.approx(np.linspace(0.05, 0.95, 10))
    assert share == pytest.approx(mean)


def test_calibration_keeps_equal_scores_together() -> None:
    mean, share = plots.calibration(np.array([True, False, False, False]), np.full(4, 0.3))
    assert mean == pytest.approx([0.3])
    assert share == pytest.approx([0.25])


def test_pictures_are_written(tmp_path: Path) -> None:
    labels = np.array([True, False, True, False])
    scores = {"model": np.array([0.9, 0.2, 0.7, 0.4]), "baseline": np.full(4, 0.5)}
    written = plots.draw(
        labels,
        scores,
        tmp_path,
        title="test",
        importance={"a": 0.2, "b": -0.01},
        folds={"model": [("2026-01-31", 0.7), ("2026-02-28", 0.8)]},
        metric="roc_auc",
    )
    assert [path.name for path in written] == [
        "roc.png",
        "precision_recall.png",
        "calibration.png",
        "scores.png",
        "importance.png",
        "months.png",
    ]
    for path in written:
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("task", "labels", "scores", "names"),
    [
        (
            Task.MULTICLASS,
            np.array([0, 1, 2, 1]),
            np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.5, 0.3, 0.2]]),
            ["roc", "confusion"],
        ),
        (
            Task.REGRESSION,
            np.array([1.0, 2.0, 3.5, 9.0]),
            np.array([1.5, 2.0, 3.0, 7.0]),
            ["predicted", "errors"],
        ),
    ],
)
def test_each_task_has_pictures_of_its_own(
    tmp_path: Path, task: Task, labels: np.ndarray, scores: np.ndarray, names: list[str]
) -> None:
    written = plots.draw(
        labels,
        {"model": scores, "baseline": scores[::-1].copy()},
        tmp_path,
        title="test",
        importance={"a": 0.2},
        folds={"model": [("part 1", 0.7), ("validation", 0.8)]},
        metric="r2",
        task=task,
        classes=("x", "y", "z"),
    )
    assert [path.stem for path in written] == [*names, "importance", "months"]
    for path in written:
        assert path.read_bytes().startswith(b"\x89PNG")
