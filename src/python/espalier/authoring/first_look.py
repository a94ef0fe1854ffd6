"""How well the new product's estimator tells rows that it has not seen, before anything is kept."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from espalier.authoring.convert import FEATURE_DATE, LABEL, LABEL_DATE
from espalier.project import Project, Task, load_function, load_project

# As the product's own test has it, so that what is seen here is what is tested there.
_ROWS = 2000
NEAR_PERFECT = 0.99


@dataclass(frozen=True)
class FirstLook:
    """The estimator's and the baseline's quality on the unseen half of the rows.

    `metric` is ROC-AUC, accuracy or R²; `suspicious` is what the gate takes for a leak: ROC-AUC of
    classes, R² of numbers. NaN where it cannot be told.
    """

    metric: str
    model: float
    baseline: float
    suspicious: float

    @property
    def better(self) -> bool:
        """Whether the estimator tells more than the baseline."""
        return self.model > self.baseline


def look(root: Path, name: str) -> FirstLook:
    """Train the product that lies in a folder on half of its rows, and try it on the others.

    Args:
        root: The folder, with src/python and data/seeds.
        name: The product.
    """
    from threadpoolctl import threadpool_limits

    with _importable(root / "src" / "python", name), threadpool_limits(1):
        project = load_project(name)
        features, labels = _rows(project, root / "data" / "seeds" / name)
        half = len(labels) // 2
        model, baseline = (
            load_function(reference)(seed=project.seed).fit(features[:half], labels[:half])
            for reference in (project.estimator, project.baseline)
        )
        unseen, truth = features[half:], labels[half:]
        if project.task is Task.BINARY:
            found = _roc_auc(model, unseen, truth)
            return FirstLook("ROC-AUC", found, 0.5, found)
        ours, theirs = model.score(unseen, truth), baseline.score(unseen, truth)
        if project.task is Task.REGRESSION:
            return FirstLook("R²", ours, theirs, ours)
        return FirstLook("accuracy", ours, theirs, _roc_auc(model, unseen, truth))


def _rows(project: Project, seeds: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.generic]]:
    key = project.entity.join_key
    labels, features = (
        pd.concat(
            [
                pd.read_csv(path, dtype=str, keep_default_na=False)
                for path in sorted(seeds.glob(f"month_*/{table}.csv"))
            ]
        )
        for table in ("labels", "features")
    )
    both = labels.merge(features, left_on=[key, LABEL_DATE], right_on=[key, FEATURE_DATE])
    drawn = both.sample(min(len(both), _ROWS), random_state=0)
    matrix = drawn[list(project.view.features)].apply(pd.to_numeric).to_numpy(np.float32)
    values = drawn[LABEL]
    if project.task is Task.BINARY:
        return matrix.astype(float), (values == "true").to_numpy()
    if project.task is Task.MULTICLASS:
        return matrix.astype(float), values.map(project.label.classes.index).to_numpy()
    return matrix.astype(float), values.to_numpy(float)


def _roc_auc(
    model: object, features: npt.NDArray[np.float64], truth: npt.NDArray[np.generic]
) -> float:
    from sklearn.metrics import roc_auc_score

    scores = model.predict_proba(features)  # type: ignore[attr-defined]  # scikit-learn has no types
    if scores.shape[1] == 2:
        return float(roc_auc_score(truth, scores[:, 1])) if len(np.unique(truth)) == 2 else np.nan
    if len(np.unique(truth)) != scores.shape[1]:
        return float(np.nan)
    return float(roc_auc_score(truth, scores, multi_class="ovr"))


@contextmanager
def _importable(folder: Path, name: str) -> Iterator[None]:
    """Let a package be imported from a folder, and forget it afterwards."""
    sys.path.insert(0, str(folder))
    unwritten, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = unwritten
        for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
            del sys.modules[module]
