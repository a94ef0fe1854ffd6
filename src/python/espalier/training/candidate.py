"""Puts a trained model and all that is known of it together for the registry."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from espalier.project import Project
from espalier.registry.manifest import ONNX, SKOPS, ModelManifest
from espalier.registry.mlflow_registry import Candidate, TrainingData
from espalier.training import plots, skops_file
from espalier.training.evaluate import Floats
from espalier.training.fitting import Fitted, matrix
from espalier.training.gate import Verdict
from espalier.training.split import Split

_GOLDEN_ROWS = 8
_SCORING_PACKAGES = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skops")


def assemble(
    folder: Path,
    *,
    project: Project,
    split: Split,
    model: Fitted,
    baseline: Fitted,
    threshold: float,
    metrics: Mapping[str, float],
    verdict: Verdict,
    snapshots: list[dict[str, Any]],
    provenance: Mapping[str, str],
) -> Candidate:
    """Write the model's files and pictures into an existing folder; give what to register.

    Raises:
        CheckRefused: the estimator holds types that skops would not load again.
    """
    features = project.view.features
    table = project.table(project.view.table)
    rows, golden = _golden(matrix(split.validation, features), model.scores)
    manifest = ModelManifest(
        project=project.name,
        join_key=project.entity.join_key,
        view=project.view.name,
        features=features,
        feature_types=tuple(table.column(name).type.value for name in features),
        ttl_seconds=project.view.ttl.total_seconds(),
        threshold=threshold,
        file=ONNX,
        digest=hashlib.sha256(model.onnx).hexdigest(),
        metrics=metrics,
        provenance=provenance,
        golden_rows=rows,
        golden_scores=golden,
    )
    (folder / ONNX).write_bytes(model.onnx)
    skops_file.save(model.estimator, folder / SKOPS)
    title = f"{project.name}, labels of {split.validation_time}"
    scores = {project.name: model.scores, "baseline": baseline.scores}
    labels = split.validation["label"].to_numpy(dtype=bool)
    return Candidate(
        manifest=manifest,
        onnx=folder / ONNX,
        skops=folder / SKOPS,
        data=TrainingData(
            name=f"{project.name} labels to {provenance['train_to']}",
            digest=provenance["data_digest"],
            source={"snapshots": snapshots, "view": project.view.name},
            columns=_columns(split.train),
            rows=len(split.train),
        ),
        params=_params(model.estimator, split, threshold, project),
        metrics={
            **metrics,
            "gate_difference": verdict.difference,
            "gate_low": verdict.low,
            "gate_high": verdict.high,
        },
        tags={
            **provenance,
            "gate": "accepted" if verdict.accepted else "refused",
            "gate_reason": verdict.reason,
        },
        requirements=[f"{name}=={package_version(name)}" for name in _SCORING_PACKAGES],
        figures=plots.draw(labels, scores, folder, title=title),
    )


def _golden(
    rows: Floats, scores: Floats
) -> tuple[tuple[tuple[float | None, ...], ...], tuple[float, ...]]:
    """Rows from the lowest to the highest score, and first one with a missing value if there is."""
    spread = np.argsort(scores, kind="stable")[
        np.linspace(0, len(scores) - 1, _GOLDEN_ROWS).astype(int)
    ]
    missing = np.flatnonzero(np.isnan(rows).any(axis=1))[:1]
    chosen = dict.fromkeys([*missing.tolist(), *spread.tolist()])
    return (
        tuple(tuple(None if math.isnan(v) else v for v in rows[i].tolist()) for i in chosen),
        tuple(float(scores[i]) for i in chosen),
    )


def _columns(frame: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(kind) for name, kind in frame.dtypes.items()}


def _params(estimator: Any, split: Split, threshold: float, project: Project) -> dict[str, object]:
    """The estimator's own settings and the split's, as parameters of the run."""
    settings = {
        f"estimator.{name}": value
        for name, value in estimator.get_params(deep=True).items()
        if value is None or isinstance(value, (str, int, float, bool))
    }
    return {
        **settings,
        "estimator": project.estimator,
        "baseline": project.baseline,
        "train_rows": len(split.train),
        "validation_rows": len(split.validation),
        "train_months": len(split.train_times),
        "purge_days": project.label.horizon.days,
        "threshold": threshold,
        "threshold_objective": "balanced accuracy",
    }
