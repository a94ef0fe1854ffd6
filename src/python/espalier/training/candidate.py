"""Puts a trained model and all that is known of it together for the registry."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from espalier.project import Project, Task
from espalier.registry.manifest import GATE, ONNX, PROVENANCE, SKOPS, ModelManifest
from espalier.registry.mlflow_registry import Candidate, TrainingData
from espalier.training import fitting, model_card, plots, provenance, served
from espalier.training.build import Built
from espalier.training.evaluate import Floats
from espalier.training.gate import Verdict
from espalier.training.slices import SliceResult
from espalier.training.split import Split

CARD, SLICES, SEARCH = "model_card.md", "slices.json", "search.json"
_GOLDEN_ROWS = 8
_SCORING_PACKAGES = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skops")
_TAG_LENGTH = 500

_GoldenRows = tuple[tuple[float | None, ...], ...]
_GoldenScores = tuple[float | tuple[float, ...], ...]


def manifest(
    project: Project, split: Split, built: Built, origin: Mapping[str, str]
) -> ModelManifest:
    """What the served file carries beside it, golden rows included."""
    features = project.view.features
    table = project.table(project.view.table)
    rows, golden = _golden(fitting.matrix(split.validation, features), built.scores)
    return ModelManifest(
        project=project.name,
        join_key=project.entity.join_key,
        view=project.view.name,
        features=features,
        feature_types=tuple(table.column(name).type.value for name in features),
        ttl_seconds=project.view.ttl.total_seconds(),
        threshold=built.threshold,
        file=built.served.file,
        digest=built.served.digest,
        metrics=built.metrics,
        provenance=origin,
        golden_rows=rows,
        golden_scores=golden,
        task=project.task.value,
        classes=project.label.classes,
    )


def assemble(
    folder: Path,
    *,
    project: Project,
    split: Split,
    built: Built,
    made: ModelManifest,
    verdict: Verdict,
    segments: Sequence[SliceResult],
    importance: Mapping[str, float],
    origin: Mapping[str, Any],
) -> Candidate:
    """Write the model's files and pictures into an existing folder; give what to register.

    Raises:
        CheckRefused: the estimator holds types that skops would not load again.
    """
    onnx = None
    if built.served.file == ONNX:
        onnx = folder / ONNX
        onnx.write_bytes(built.served.content)
        (folder / SKOPS).write_bytes(served.skops_bytes(built.estimator))
    else:
        # Byte for byte the file whose digest the manifest holds.
        (folder / SKOPS).write_bytes(built.served.content)
    card = model_card.write(
        project,
        split,
        built,
        made,
        verdict=verdict,
        segments=segments,
        importance=importance,
    )
    return Candidate(
        manifest=made,
        onnx=onnx,
        skops=folder / SKOPS,
        data=_data("training", project, split.train, origin),
        validation=_data("validation", project, split.validation, origin),
        params=_params(built, split, project),
        metrics=_metrics(built, verdict, importance),
        tags={**made.provenance, "format": built.served.file, **_gate_tags(verdict)},
        requirements=[f"{name}=={package_version(name)}" for name in _SCORING_PACKAGES],
        figures=_figures(folder, project, split, built, importance),
        documents={
            PROVENANCE: provenance.text(origin),
            GATE: _json(verdict.evidence()),
            SLICES: _json([one.evidence() for one in segments]),
            SEARCH: _json(built.search.evidence()),
            CARD: card,
        },
    )


def _golden(rows: Floats, scores: Floats) -> tuple[_GoldenRows, _GoldenScores]:
    """Rows from the lowest to the highest score, and first one with a missing value if there is.

    Of several classes each one's rows are taken from its lowest to its highest probability.
    """
    order = np.argsort(scores, kind="stable") if scores.ndim == 1 else _by_class(scores)
    spread = order[np.linspace(0, len(scores) - 1, _GOLDEN_ROWS).astype(int)]
    missing = np.flatnonzero(np.isnan(rows).any(axis=1))[:1]
    chosen = dict.fromkeys([*missing.tolist(), *spread.tolist()])
    return (
        tuple(tuple(None if math.isnan(v) else v for v in rows[i].tolist()) for i in chosen),
        tuple(float(scores[i]) if scores.ndim == 1 else tuple(scores[i].tolist()) for i in chosen),
    )


def _by_class(scores: Floats) -> npt.NDArray[np.int64]:
    """Rows by their most probable class, and then by its probability."""
    return np.lexsort((scores.max(axis=1), scores.argmax(axis=1)))


def _data(
    use: str, project: Project, rows: pd.DataFrame, origin: Mapping[str, Any]
) -> TrainingData:
    newest = rows["label_time"].max().date()
    digest = origin["data"]["train_digest" if use == "training" else "validation_digest"]
    return TrainingData(
        name=f"{project.name} labels to {newest}",
        digest=digest,
        source={"snapshots": origin["snapshots"], "view": project.view.name},
        columns={str(name): str(kind) for name, kind in rows.dtypes.items()},
        rows=len(rows),
    )


def _gate_tags(verdict: Verdict) -> dict[str, str]:
    told = {
        f"gate.{check.name.replace(' ', '_')}": check.told()[:_TAG_LENGTH]
        for check in verdict.checks
    }
    return {
        "gate": "accepted" if verdict.accepted else "refused",
        "gate_reason": verdict.reason[:_TAG_LENGTH],
        "gate_opponent": verdict.opponent,
        **told,
    }


def _metrics(built: Built, verdict: Verdict, importance: Mapping[str, float]) -> dict[str, float]:
    found = verdict.comparison
    return {
        **built.metrics,
        "gate_difference": found.difference,
        "gate_low": found.low,
        "gate_high": found.high,
        **{
            f"gate.{check.name.replace(' ', '_')}": check.value
            for check in verdict.checks
            if check.value is not None
        },
        **{f"importance.{name}": fall for name, fall in importance.items()},
    }


def _params(built: Built, split: Split, project: Project) -> dict[str, object]:
    """The estimator's own settings, what was chosen, and the split's, as parameters of the run."""
    settings = {
        f"estimator.{name}": value
        for name, value in built.estimator.get_params(deep=True).items()
        if value is None or isinstance(value, (str, int, float, bool))
    }
    binary = {
        "calibration": project.calibration,
        "threshold": built.threshold,
        "threshold_objective": project.decision.objective,
    }
    return {
        **settings,
        **(binary if project.task is Task.BINARY else {"task": project.task.value}),
        **{f"setting.{name}": value for name, value in built.settings.items()},
        "estimator": project.estimator,
        "baseline": project.baseline,
        "trials": len(built.search.trials),
        "folds": len(built.search.trials[0].folds),
        "train_rows": len(split.train),
        "validation_rows": len(split.validation),
        "train_months": len(split.train_times),
        "purge_days": project.label.horizon.days,
        "format": built.served.file,
    }


def _figures(
    folder: Path, project: Project, split: Split, built: Built, importance: Mapping[str, float]
) -> list[Path]:
    metric = project.gate.metric
    chosen = next(t for t in built.search.trials if t.settings == built.settings)
    last = {
        project.name: built.metrics[metric],
        "baseline": built.metrics[f"baseline_{metric}"],
    }
    by_entity = project.validation.by == "entity"
    folds = {
        name: [
            *(
                (f"part {number}" if by_entity else str(fold.time), fold.metrics[metric])
                for number, fold in enumerate(trial.folds, start=1)
            ),
            ("validation" if by_entity else str(split.validation_time), last[name]),
        ]
        for name, trial in ((project.name, chosen), ("baseline", built.search.baseline))
    }
    return plots.draw(
        fitting.target(split.validation),
        {project.name: built.scores, "baseline": built.baseline_scores},
        folder,
        title=f"{project.name}, labels of {split.validation_time}",
        importance=importance,
        folds=folds,
        metric=metric,
        task=project.task,
        classes=project.label.classes,
    )


def _json(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
