"""Trains a model on what was known at a time, and promotes it when the gate accepts it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

from espalier.features.point_in_time import training_set
from espalier.postgres.connect import connect
from espalier.project import Project
from espalier.registry import promotion
from espalier.registry.manifest import ASKED_BY
from espalier.registry.mlflow_registry import log_and_register
from espalier.training import candidate, earlier, evaluate, provenance
from espalier.training.build import build
from espalier.training.judging import champion_scores, judge
from espalier.training.program import Program
from espalier.training.split import split_rows
from espalier.training.trained import Trained


def train(
    project: Project,
    *,
    as_of: date,
    dsn: str,
    tracking_uri: str,
    who: str,
    program: Program | None = None,
    asked_by: str = "",
) -> Trained:
    """Train, validate on the newest labels, register a version, and promote it if the gate accepts.

    Scores are those of the served file throughout. A refused version is registered too, with its
    reasons, and never becomes champion.

    Args:
        project: The declaration.
        as_of: Only what was known on this day is used.
        dsn: The database with snapshots and ledger.
        tracking_uri: The MLflow server.
        who: Who trains, for the ledger.
        program: The program that trains, for the version's provenance.
        asked_by: Names what asked for it. A training that registered a version under this name is
            not done again: what it gave is told, and promoted if that is still due.

    Raises:
        BadData, CheckRefused: the labels known do not allow training, the model can be kept in no
            format, or the champion cannot be established.
        DependencyUnreachable: PostgreSQL or MLflow does not answer.
    """
    with connect(dsn) as connection:
        if asked_by and (
            done := earlier.found(connection, project, tracking_uri, asked_by=asked_by, who=who)
        ):
            return done
        champion = promotion.champion(connection, tracking_uri, project.name)
        # What is recorded as seen is what was seen, also while a revision is being stored.
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        snapshots = provenance.known_snapshots(connection, project, as_of)
        frame = training_set(connection, project, as_of=as_of)
        connection.rollback()
        split = split_rows(frame, project)
        built = build(project, split)
        if champion is None:
            against, opponent = "the baseline", built.baseline_scores
        else:
            against = f"champion {champion}"
            opponent = champion_scores(project, split, champion, tracking_uri)
        origin = provenance.document(
            project,
            as_of=as_of,
            who=who,
            snapshots=snapshots,
            split=split,
            built=built,
            program=program or Program(),
        )
        made = candidate.manifest(project, split, built, provenance.tags(origin))
        judged = judge(
            project,
            split,
            built,
            made,
            connection=connection,
            opponent=opponent,
            against=against,
            as_of=as_of,
        )
        verdict = judged.verdict
        with tempfile.TemporaryDirectory() as scratch:
            assembled = candidate.assemble(
                Path(scratch),
                project=project,
                split=split,
                built=built,
                made=made,
                verdict=verdict,
                segments=judged.segments,
                importance=judged.importance,
                origin=origin,
            )
            if asked_by:
                assembled = replace(assembled, tags={**assembled.tags, ASKED_BY: asked_by})
            registered = log_and_register(tracking_uri, assembled)
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
    metrics = evaluate.metrics_of(project.task)
    return Trained(
        version=registered.version,
        run_id=registered.run_id,
        metrics={name: built.metrics[name] for name in metrics},
        baseline={name: built.metrics[f"baseline_{name}"] for name in metrics},
        validation_time=split.validation_time,
        promoted=verdict.accepted,
        reason=verdict.reason,
        rows=len(split.train),
        format=built.served.file,
        checks=verdict.checks,
    )
