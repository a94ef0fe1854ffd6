"""Trains a model on what was known at a time, and promotes it when the gate accepts it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from espalier.errors import CheckRefused
from espalier.features.point_in_time import training_set
from espalier.postgres.connect import connect
from espalier.project import Project
from espalier.registry import promotion
from espalier.registry.download import fetch_version
from espalier.registry.mlflow_registry import log_and_register
from espalier.training import candidate, evaluate, fitting, onnx_export
from espalier.training.evaluate import Booleans, Floats
from espalier.training.fitting import Fitted, matrix
from espalier.training.gate import decide
from espalier.training.provenance import known_snapshots, origin
from espalier.training.split import Split, split_by_time


@dataclass(frozen=True)
class Trained:
    """One training run's result. `rows` were trained on; metrics are of the validation rows."""

    version: str
    run_id: str
    metrics: Mapping[str, float]
    baseline: Mapping[str, float]
    validation_time: date
    promoted: bool
    reason: str
    rows: int


def train(
    project: Project,
    *,
    as_of: date,
    dsn: str,
    tracking_uri: str,
    who: str,
    provenance: Mapping[str, str] | None = None,
) -> Trained:
    """Train, validate on the newest labels, register a version, and promote it if it is not worse.

    Scores are those of the ONNX model throughout, since that is what is served.

    Args:
        project: The declaration.
        as_of: Only what was known on this day is used.
        dsn: The database with snapshots and ledger.
        tracking_uri: The MLflow server.
        who: Who trains, for the ledger.
        provenance: What the caller knows of the program, such as `git_commit`; tags of the version.

    Raises:
        BadData, CheckRefused: the labels known do not allow training, the model does not convert
            to ONNX faithfully, or the champion cannot be established.
        DependencyUnreachable: PostgreSQL or MLflow does not answer.
    """
    with connect(dsn) as connection:
        champion = promotion.champion(connection, tracking_uri, project.name)
        frame = training_set(connection, project, as_of=as_of)
        snapshots = known_snapshots(connection, project, as_of)
        connection.rollback()
        split = split_by_time(frame, project.label)
        labels = split.validation["label"].to_numpy(dtype=bool)
        model = fitting.fit(project, project.estimator, split)
        baseline = fitting.fit(project, project.baseline, split)
        if champion is None:
            against, opponent = "the baseline", baseline.scores
        else:
            against = f"champion {champion}"
            opponent = champion_scores(project, split, champion, tracking_uri)
        verdict = decide(
            labels, model.scores, opponent, gate=project.gate, against=against, seed=project.seed
        )
        threshold = fitting.choose_threshold(project, split)
        metrics = _metrics(project, labels, model, baseline, threshold)
        with tempfile.TemporaryDirectory() as scratch:
            made = candidate.assemble(
                Path(scratch),
                project=project,
                split=split,
                model=model,
                baseline=baseline,
                threshold=threshold,
                metrics=metrics,
                verdict=verdict,
                snapshots=snapshots,
                provenance={
                    **origin(project, as_of, snapshots, split, who),
                    **(provenance or {}),
                },
            )
            registered = log_and_register(tracking_uri, made)
        if verdict.accepted:
            promotion.promote(
                connection,
                tracking_uri,
                project.name,
                registered.version,
                expected=champion,
                who=who,
                why=verdict.reason,
                evidence={"gate": verdict.evidence(), "run_id": registered.run_id},
            )
    return Trained(
        version=registered.version,
        run_id=registered.run_id,
        metrics={name: metrics[name] for name in evaluate.METRICS},
        baseline={name: metrics[f"baseline_{name}"] for name in evaluate.METRICS},
        validation_time=split.validation_time,
        promoted=verdict.accepted,
        reason=verdict.reason,
        rows=len(split.train),
    )


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
    return onnx_export.score(content, matrix(split.validation, manifest.features))


def _metrics(
    project: Project, labels: Booleans, model: Fitted, baseline: Fitted, threshold: float
) -> dict[str, float]:
    found = evaluate.metrics(labels, model.scores)
    drawn = evaluate.bootstrap(
        labels, {"model": model.scores}, names=evaluate.METRICS, seed=project.seed
    )["model"]
    for name, values in drawn.items():
        found |= {f"{name}_{k}": v for k, v in asdict(evaluate.interval(values)).items()}
    for name, value in evaluate.metrics(labels, baseline.scores).items():
        found[f"baseline_{name}"] = value
    found |= evaluate.decision_metrics(labels, model.scores, threshold)
    found["onnx_parity"] = model.parity
    return found
