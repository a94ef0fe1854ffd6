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
from espalier.training import fitting, gate, online_parity, served, slices
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
        opponent: The champion's or the baseline's scores of the validation rows [n].
        against: Whose they are.
        as_of: The day as of which the model was trained.
    """
    features, limits = project.view.features, project.gate
    labels = fitting.target(split.validation)
    rows = fitting.matrix(split.validation, features)
    found = compare(labels, built.scores, opponent, gate=limits, seed=project.seed)
    segments = slices.measure(project, split.validation, built.scores, opponent)
    importance = permutation_importance(
        served.open_score(built.served.file, built.served.content),
        rows,
        labels,
        features,
        seed=project.seed,
    )
    online = online_parity.check(connection, project, as_of=as_of)
    checks = (
        gate.comparison(found, against, limits),
        *gate.slices(segments, against, limits),
        gate.leakage(built.metrics["roc_auc"], importance, limits),
        gate.parity(built.served),
        gate.golden_rows(built.served, made),
        gate.latency(built.served, rows, limits),
        gate.online(online),
        gate.server_schema(project, made, built.served, online),
    )
    return Judged(Verdict(against, found, checks), segments, importance)


def champion_scores(project: Project, split: Split, champion: str, tracking_uri: str) -> Floats:
    """The champion's scores of the validation rows [n], from the artifact that is served.

    Raises:
        CheckRefused: it needs features that the view lacks, or was trained on labels as new as
            those that are to judge it.
        ModelNotReady, BadData, DependencyUnreachable: as `fetch_version`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        fetched = fetch_version(tracking_uri, project.name, champion, Path(scratch))
        content = fetched.path.read_bytes()
    manifest = fetched.manifest
    if missing := set(manifest.features) - set(project.view.features):
        raise CheckRefused(
            f"champion {champion} of {project.name} needs features that the view no longer has: "
            f"{', '.join(sorted(missing))}",
            fix="keep them in the view until a model without them is champion",
        )
    trained_to = date.fromisoformat(manifest.provenance["train_to"])
    if trained_to >= split.validation_time:
        raise CheckRefused(
            f"champion {champion} of {project.name} was trained on labels up to {trained_to}, so "
            f"those of {split.validation_time} cannot judge it",
            fix="train as of a later day",
        )
    score = served.open_score(manifest.file, content)
    return score(fitting.matrix(split.validation, manifest.features))
