"""The model card: one page that says what a model is, how good, on what data, and its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from espalier.project import Project, Task
from espalier.registry.manifest import ModelManifest
from espalier.training import evaluate, fitting, provenance, slices
from espalier.training.build import Built
from espalier.training.gate import Verdict
from espalier.training.multiclass import class_table
from espalier.training.slices import SliceResult
from espalier.training.split import Split


def write(
    project: Project,
    split: Split,
    built: Built,
    manifest: ModelManifest,
    *,
    verdict: Verdict,
    segments: Sequence[SliceResult],
    importance: Mapping[str, float],
) -> str:
    """The card in Markdown (Mitchell et al. 2019, Model Cards for Model Reporting)."""
    parts = [
        f"# Model card: {project.name}",
        f"{project.description} {_score(project)}",
        "## Model",
        _model(project, built, manifest),
        "## Data",
        _data(project, split),
        "## Metrics",
        (
            f"On the {len(split.validation):,} labels of {split.validation_time}, which nothing here "
            "was fitted to or chosen by; 95 % bootstrap intervals."
        ),
        _metrics(project.task, built.metrics),
        *_decisions(project, split, built),
    ]
    if built.search.trials[0].folds:
        by_entity = project.validation.by == "entity"
        parts += ["## Across entities" if by_entity else "## Through time", _folds(project, built)]
    if segments:
        told = f"Slices of the same rows against {verdict.opponent}."
        parts += ["## Slices", told, slices.table(segments, project.gate.metric)]
    parts += [
        "## What it rests on",
        f"Fall of {evaluate.title(evaluate.main_metric(project.task))} when a feature's values "
        "are permuted: "
        + ", ".join(f"{name} {fall:+.4f}" for name, fall in importance.items())
        + ".",
        f"## Gate: {'accepted' if verdict.accepted else 'refused'}",
        f"Against {verdict.opponent}.",
        _table(
            ("check", "verdict", "why"),
            [(c.name, c.verdict, c.reason.replace("|", "/")) for c in verdict.checks],
        ),
        "## Limits",
        _limits(project, split),
        "## Provenance",
        _table(("what", "value"), sorted(manifest.provenance.items())),
    ]
    return "\n\n".join(parts) + "\n"


def _score(project: Project) -> str:
    label = project.label
    if project.task is Task.BINARY:
        return f"A score is the probability of: {label.positive_means}."
    column = project.table(label.table).column(label.column)
    if project.task is Task.MULTICLASS:
        return f"A score is the probability of the most probable {label.column} ({column.description})."
    return f"A score is {label.column}: {column.description}."


def _decisions(project: Project, split: Split, built: Built) -> list[str]:
    if project.task is Task.BINARY:
        return [
            f"At the threshold {built.threshold:.4f}, chosen for {project.decision.objective}: "
            + ", ".join(f"{name} {built.metrics[name]:.3f}" for name in _DECISION)
            + "."
        ]
    if project.task is Task.REGRESSION:
        return []
    found = class_table(fitting.target(split.validation), built.scores, project.label.classes)
    return [
        _table(
            ("class", "rows", "precision", "recall"),
            [(name, str(rows), f"{p:.3f}", f"{r:.3f}") for name, rows, p, r in found],
        )
    ]


_DECISION = ("balanced_accuracy", "f1", "precision", "recall", "predicted_share")


def _model(project: Project, built: Built, manifest: ModelManifest) -> str:
    settings = ", ".join(f"{k}={v}" for k, v in built.settings.items()) or "its defaults"
    kind = "ONNX" if built.served.parity else f"skops, since: {built.served.why_not_onnx}"
    tried = len(built.search.trials)
    return "\n".join(
        [
            f"- estimator `{project.estimator}` with {settings}, of {tried} tried",
            *_classes(project),
            f"- served as `{manifest.file}` ({kind}), sha256 `{manifest.digest}`",
            f"- inputs: {', '.join(manifest.features)} of view {manifest.view}",
            f"- seed {project.seed}",
        ]
    )


def _classes(project: Project) -> list[str]:
    if project.task is Task.REGRESSION:
        return []
    kept = "no rows are dropped or repeated, so that scores stay probabilities"
    if project.task is Task.MULTICLASS:
        return [f"- class imbalance: {kept}"]
    return [
        f"- calibration: {project.calibration}; class imbalance: {kept}; the threshold answers for it"
    ]


def _data(project: Project, split: Split) -> str:
    train, validation = split.train["label"], split.validation["label"]
    if project.validation.by == "entity":
        apart = f"- validated on entities that were not trained on: {provenance.split_by(project)}"
    else:
        apart = (
            f"- labels less than {project.label.horizon.days} days older than those were left out: "
            "at that day they were not known"
        )
    return "\n".join(
        [
            (
                f"- trained on {len(train):,} labels of {split.train_times[0]} to "
                f"{split.train_times[-1]}, {_told(project, train)}"
            ),
            (
                f"- validated on {len(validation):,} of {split.validation_time}, "
                f"{_told(project, validation)}"
            ),
            apart,
            "- features as known at the label's time",
        ]
    )


def _told(project: Project, labels: pd.Series) -> str:
    """How the labels are distributed, in words."""
    if project.task is Task.BINARY:
        return f"{labels.mean():.1%} positive"
    if project.task is Task.REGRESSION:
        return f"mean {labels.mean():.4g}, standard deviation {labels.std(ddof=0):.4g}"
    shares = ((name, (labels == place).mean()) for place, name in enumerate(project.label.classes))
    return ", ".join(f"{share:.1%} {name}" for name, share in shares)


def _metrics(task: Task, found: Mapping[str, float]) -> str:
    def row(name: str) -> tuple[str, ...]:
        interval = f"{found[f'{name}_low']:.4f} to {found[f'{name}_high']:.4f}"
        return name, f"{found[name]:.4f}", interval, f"{found[f'baseline_{name}']:.4f}"

    return _table(
        ("metric", "value", "interval", "baseline"),
        [row(name) for name in evaluate.metrics_of(task)],
    )


def _folds(project: Project, built: Built) -> str:
    metric, by_entity = project.gate.metric, project.validation.by == "entity"
    chosen = next(t for t in built.search.trials if t.settings == built.settings)
    rows = [
        (
            f"part {number}" if by_entity else str(ours.time),
            f"{ours.rows:,}",
            f"{ours.metrics[metric]:.4f}",
            f"{b.metrics[metric]:.4f}",
        )
        for number, (ours, b) in enumerate(
            zip(chosen.folds, built.search.baseline.folds, strict=True), start=1
        )
    ]
    what = (
        "for parts of the training rows' entities, each predicted by the others"
        if by_entity
        else "at label times within the training rows, each predicted by older labels"
    )
    head = "entities" if by_entity else "label time"
    told = f"{metric} {what}; the settings were chosen by these.\n\n"
    return told + _table((head, "rows", "model", "baseline"), rows)


def _limits(project: Project, split: Split) -> str:
    return "\n".join(
        [
            *(
                ["- validated on other entities of the same time: change over time is not in it"]
                if project.validation.by == "entity"
                else []
            ),
            f"- validated at one label time, {split.validation_time}: see drift reports for later",
            f"- features older than {project.view.ttl.days} days are stale and answered as such",
            "- intervals resample entities; what moves all of them at once is not in them",
        ]
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
