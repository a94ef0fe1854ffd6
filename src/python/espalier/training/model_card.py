"""The model card: one page that says what a model is, how good, on what data, and its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from espalier.project import Project
from espalier.registry.manifest import ModelManifest
from espalier.training import evaluate, slices
from espalier.training.build import Built
from espalier.training.gate import Verdict
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
        f"{project.description} A score is the probability of: {project.label.positive_means}.",
        "## Model",
        _model(project, built, manifest),
        "## Data",
        _data(project, split),
        "## Metrics",
        (
            f"On the {len(split.validation):,} labels of {split.validation_time}, which nothing here "
            "was fitted to or chosen by; 95 % bootstrap intervals."
        ),
        _metrics(built.metrics),
        f"At the threshold {built.threshold:.4f}, chosen for {project.decision.objective}: "
        + ", ".join(f"{name} {built.metrics[name]:.3f}" for name in _DECISION)
        + ".",
    ]
    if built.search.trials[0].folds:
        parts += ["## Through time", _through_time(project, built)]
    if segments:
        told = f"Slices of the same rows against {verdict.opponent}."
        parts += ["## Slices", told, slices.table(segments, project.gate.metric)]
    parts += [
        "## What it rests on",
        "Fall of ROC-AUC when a feature's values are permuted: "
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


_DECISION = ("balanced_accuracy", "f1", "precision", "recall", "predicted_share")


def _model(project: Project, built: Built, manifest: ModelManifest) -> str:
    settings = ", ".join(f"{k}={v}" for k, v in built.settings.items()) or "its defaults"
    kind = "ONNX" if built.served.parity else f"skops, since: {built.served.why_not_onnx}"
    tried = len(built.search.trials)
    return "\n".join(
        [
            f"- estimator `{project.estimator}` with {settings}, of {tried} tried",
            (
                f"- calibration: {project.calibration}; class imbalance: no rows are dropped or "
                "repeated, so that scores stay probabilities; the threshold answers for it"
            ),
            f"- served as `{manifest.file}` ({kind}), sha256 `{manifest.digest}`",
            f"- inputs: {', '.join(manifest.features)} of view {manifest.view}",
            f"- seed {project.seed}",
        ]
    )


def _data(project: Project, split: Split) -> str:
    train, validation = split.train["label"], split.validation["label"]
    return "\n".join(
        [
            (
                f"- trained on {len(train):,} labels of {split.train_times[0]} to "
                f"{split.train_times[-1]}, {train.mean():.1%} positive"
            ),
            (
                f"- validated on {len(validation):,} of {split.validation_time}, "
                f"{validation.mean():.1%} positive"
            ),
            (
                f"- labels less than {project.label.horizon.days} days older than those were left out: "
                "at that day they were not known"
            ),
            "- features as known at the label's time",
        ]
    )


def _metrics(found: Mapping[str, float]) -> str:
    def row(name: str) -> tuple[str, ...]:
        interval = f"{found[f'{name}_low']:.4f} to {found[f'{name}_high']:.4f}"
        return name, f"{found[name]:.4f}", interval, f"{found[f'baseline_{name}']:.4f}"

    return _table(
        ("metric", "value", "interval", "baseline"), [row(name) for name in evaluate.METRICS]
    )


def _through_time(project: Project, built: Built) -> str:
    metric = project.gate.metric
    chosen = next(t for t in built.search.trials if t.settings == built.settings)
    rows = [
        (
            str(ours.time),
            f"{ours.rows:,}",
            f"{ours.metrics[metric]:.4f}",
            f"{b.metrics[metric]:.4f}",
        )
        for ours, b in zip(chosen.folds, built.search.baseline.folds, strict=True)
    ]
    return (
        f"{metric} at label times within the training rows, each predicted by older labels; the "
        "settings were chosen by these.\n\n"
    ) + _table(("label time", "rows", "model", "baseline"), rows)


def _limits(project: Project, split: Split) -> str:
    return "\n".join(
        [
            f"- validated at one label time, {split.validation_time}: see drift reports for later",
            f"- features older than {project.view.ttl.days} days are stale and answered as such",
            "- intervals resample entities; what moves all of them at once is not in them",
        ]
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
