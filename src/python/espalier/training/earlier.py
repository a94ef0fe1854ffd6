"""A training that was done before under the same name: its version, promoted if that is still due."""

from __future__ import annotations

from datetime import date

from espalier.postgres.connect import Connection
from espalier.project import Project
from espalier.registry import ledger, promotion, versions
from espalier.registry.manifest import GATE, PROVENANCE
from espalier.registry.versions import Version
from espalier.training import evaluate
from espalier.training.gate import Check
from espalier.training.trained import Trained


def found(
    connection: Connection, project: Project, tracking_uri: str, *, asked_by: str, who: str
) -> Trained | None:
    """What a training that was asked for under this name gave; None when none registered a version.

    One that ended between registration and promotion is promoted now, by the gate's verdict of then.

    Args:
        connection: The database with the ledger; its open transaction is ended.
        project: The declaration.
        tracking_uri: The MLflow server.
        asked_by: The name.
        who: Who trains, for the ledger.

    Raises:
        CheckRefused: it is to be promoted, and the champion is another one than it was compared
            with.
        ModelNotReady, BadData: a file of the version is gone or was changed.
        DependencyUnreachable: PostgreSQL or MLflow does not answer.
    """
    version = versions.asked_for(tracking_uri, project.name, asked_by)
    if version is None:
        return None
    gate = versions.document(tracking_uri, project.name, version.version, GATE)
    origin = versions.document(tracking_uri, project.name, version.version, PROVENANCE)
    # Completes a promotion that was cut short.
    promotion.champion(connection, tracking_uri, project.name)
    if gate["accepted"] and not _was_champion(connection, project, version):
        promotion.promote(
            connection,
            tracking_uri,
            project.name,
            version.version,
            expected=_opponent(version),
            who=who,
            why=gate["reason"],
            evidence={"gate": gate, "run_id": version.run_id},
        )
    metrics, names = version.metrics, evaluate.metrics_of(project.task)
    return Trained(
        version=version.version,
        run_id=version.run_id,
        metrics={name: metrics[name] for name in names},
        baseline={name: metrics[f"baseline_{name}"] for name in names},
        validation_time=date.fromisoformat(origin["data"]["validation_time"]),
        promoted=gate["accepted"],
        reason=gate["reason"],
        rows=origin["data"]["train_rows"],
        format=origin["model"]["file"],
        checks=tuple(Check(**check) for check in gate["checks"]),
    )


def _was_champion(connection: Connection, project: Project, version: Version) -> bool:
    entries = ledger.history(connection, project.name)
    connection.rollback()
    return any(entry.to_version == version.version for entry in entries)


def _opponent(version: Version) -> str | None:
    """The champion that it was compared with; None when it was the baseline."""
    kind, _, number = version.opponent.partition(" ")
    return number if kind == "champion" else None
