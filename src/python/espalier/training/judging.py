"""Lets the gate judge a challenger: gathers what its checks look at."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from espalier.errors import CheckRefused
from espalier.postgres.connect import Connection
from espalier.project import Project
from espalier.registry.download import fetch_version
from espalier.registry.manifest import ModelManifest
from espalier.training import (
    evaluate,
    fitting,
    gate,
    online_parity,
    provenance,
    served,
    slices,
)
from espalier.training.build import Built
from espalier.training.comparison import compare
from espalier.training.evaluate import Floats
from espalier.training.gate import Verdict
from espalier.training.importance import permutation_importance
from espalier.training.slices import SliceResult
from espalier.training.split import Split


@dataclass(frozen=True)
class Judged:
    """The gate's verdict with what it was made of."""

    verdict: Verdict
    segments: tuple[SliceResult, ...]
    importance: Mapping[str, float]


def judge(
    project: Project,
    split: Split,
    built: Built,
    made: ModelManifest,
    *,
    connection: Connection,
    opponent: Floats,
    against: str,
    as_of: date,
) -> Judged:
    """Make every check of the gate; see `espalier.training.gate`.

    Args:
        project: The declaration.
        split: The rows.
        built: The challenger.
        made: Its manifest.
        connection: To the database with history and online store; its transaction is ended.
        opponent: The champion's or the baseline's scores of the validation rows.
        against: Whose they are.
        as_of: The day as of which the model was trained.
    """
    features, limits, task = project.view.features, project.gate, project.task
    labels = fitting.target(split.validation)
    rows = fitting.matrix(split.validation, features)
    found = compare(labels, built.scores, opponent, gate=limits, seed=project.seed, task=task)
    segments = slices.measure(project, split.validation, built.scores, opponent)
    importance = permutation_importance(
        served.open_score(built.served.file, built.served.content),
        rows,
        labels,
        features,
        seed=project.seed,
        task=task,
    )
    online = online_parity.check(connection, project, as_of=as_of)
    checks = (
        gate.comparison(found, against, limits),
        *gate.slices(segments, against, limits),
        gate.leakage(built.metrics[evaluate.main_metric(task)], importance, limits, task),
        gate.parity(built.served),
        gate.golden_rows(built.served, made),
        gate.latency(built.served, rows, limits),
        gate.online(online),
        gate.server_schema(project, made, built.served, online),
    )
    return Judged(Verdict(against, found, checks), segments, importance)


def champion_scores(project: Project, split: Split, champion: str, tracking_uri: str) -> Floats:
    """The champion's scores of the validation rows, from the artifact that is served.

    Raises:
        CheckRefused: it predicts something else, needs features that the view lacks, or may have
            been trained on labels that are to judge it.
        ModelNotReady, BadData, DependencyUnreachable: as `fetch_version`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        fetched = fetch_version(tracking_uri, project.name, champion, Path(scratch))
        content = fetched.path.read_bytes()
    manifest = fetched.manifest
    if (manifest.task, manifest.classes) != (project.task.value, project.label.classes):
        raise CheckRefused(
            f"champion {champion} of {project.name} is {_told(manifest.task, manifest.classes)}, "
            f"the label is now {_told(project.task.value, project.label.classes)}: they cannot be "
            "compared",
            fix="declare it as a product of another name",
        )
    if missing := set(manifest.features) - set(project.view.features):
        raise CheckRefused(
            f"champion {champion} of {project.name} needs features that the view no longer has: "
            f"{', '.join(sorted(missing))}",
            fix="keep them in the view until a model without them is champion",
        )
    _check_unseen(project, split, champion, manifest)
    score = served.open_score(manifest.file, content)
    return score(fitting.matrix(split.validation, manifest.features))


def _check_unseen(project: Project, split: Split, champion: str, manifest: ModelManifest) -> None:
    """Refuse validation rows that the champion may have been trained on."""
    split_by = provenance.split_by(project)
    if project.validation.by == "entity":
        theirs = manifest.provenance.get("validation", "time")
        if theirs != split_by:
            raise CheckRefused(
                f"champion {champion} of {project.name} was validated by {theirs}, so entities "
                f"chosen by {split_by} may be those that it was trained on and cannot judge it",
                fix=f"keep the seed and the validation that chose by {theirs}",
            )
        return
    trained_to = date.fromisoformat(manifest.provenance["train_to"])
    if trained_to >= split.validation_time:
        raise CheckRefused(
            f"champion {champion} of {project.name} was trained on labels up to {trained_to}, so "
            f"those of {split.validation_time} cannot judge it",
            fix="train as of a later day",
        )


def _told(task: str, classes: tuple[str, ...]) -> str:
    return f"{task} of {', '.join(classes)}" if classes else task
