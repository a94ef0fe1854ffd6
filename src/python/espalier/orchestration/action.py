"""What monitoring leads to: whether a new model is trained, decided once for each day.

The decision is made of what monitoring stored, kept in espalier.actions, and finished there when
the training has ended. Whether a trained model is promoted is the gate's to say, not ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from espalier.ingest import snapshots
from espalier.monitoring import drift_store
from espalier.postgres.connect import Connection
from espalier.project import Project
from espalier.registry.download import Champion
from espalier.training.evaluate import HIGHER_IS_BETTER


@dataclass(frozen=True)
class Signals:
    """What monitoring says of a champion at a day; None: it says nothing yet.

    `live_value` is the gate's metric as served, `live_high` and `live_low` are the ends of its
    interval, `expected` is its value in validation.
    """

    drift: bool | None
    live_value: float | None
    live_high: float | None
    expected: float | None
    live_low: float | None = None


@dataclass(frozen=True)
class Action:
    """A decision: "none", "held" or "train", and how its training ended, if it did."""

    id: int
    decision: str
    why: str
    champion: str | None
    signals: Signals
    outcome: str | None
    outcome_why: str | None
    model_version: str | None
    finished: bool
    decided_at: datetime

    def key(self, project: str) -> str:
        """Names the training that it asks for; no other database's decision has the same name."""
        at = self.decided_at.astimezone(UTC)
        return f"{project}-action-{self.id}-{at:%Y%m%dT%H%M%S.%f}"


_COLUMNS = (
    "id, decision, why, champion, drift, live_value, live_high, expected, live_low, outcome, "
    "outcome_why, model_version, finished_at IS NOT NULL, decided_at"
)


def stored(connection: Connection, project: Project, *, as_of: date) -> Action | None:
    """What was decided of the day's newest snapshot; None when nothing was."""
    snapshot = snapshots.newest_revision(connection, project.name, as_of)
    if snapshot is None:
        return None
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM espalier.actions "  # noqa: S608  # our own names
        "WHERE project = %s AND as_of = %s AND snapshot_id = %s",
        [project.name, as_of, snapshot.id],
    ).fetchone()
    if row is None:
        return None
    identity, decision, why, champion, *signals = row[:9]
    return Action(identity, decision, why, champion, Signals(*signals), *row[9:])


def decide(
    connection: Connection, project: Project, *, as_of: date, champion: Champion | None
) -> Action:
    """Decide on the day's newest snapshot and store it, unless that was done before.

    Args:
        connection: PostgreSQL; what is stored is committed.
        project: The declaration.
        as_of: A day with a snapshot, which was monitored if there is a champion.
        champion: The model that serves.
    """
    signals = _signals(connection, project, as_of, champion)
    decision, why = _decision(connection, project, as_of, champion, signals)
    snapshot = snapshots.newest_revision(connection, project.name, as_of)
    assert snapshot is not None, "the caller ingested it"
    connection.execute(
        "INSERT INTO espalier.actions (project, as_of, snapshot_id, champion, decision, why, drift, "
        "live_value, live_high, expected, live_low, live_shortfall, finished_at) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, "
        "CASE WHEN %s = 'train' THEN NULL ELSE now() END) ON CONFLICT DO NOTHING",
        [
            *(project.name, as_of, snapshot.id, champion and champion.version, decision, why),
            *(signals.drift, signals.live_value, signals.live_high, signals.expected),
            *(signals.live_low, _shortfall(project, signals), decision),
        ],
    )
    connection.commit()
    found = stored(connection, project, as_of=as_of)
    assert found is not None, "it or another run's was stored"
    return found


def finish(
    connection: Connection, action: Action, *, outcome: str, why: str, version: str | None
) -> None:
    """Store how the training that an action asked for ended, once.

    Args:
        connection: PostgreSQL; committed.
        action: The decision.
        outcome: "promoted", "refused" or "impossible".
        why: The gate's reason, or why nothing could be trained.
        version: The trained version, if there is one.
    """
    connection.execute(
        "UPDATE espalier.actions SET outcome = %s, outcome_why = %s, model_version = %s, "
        "finished_at = now() WHERE id = %s AND finished_at IS NULL",
        [outcome, why, version, action.id],
    )
    connection.commit()


def _signals(
    connection: Connection, project: Project, as_of: date, champion: Champion | None
) -> Signals:
    if champion is None:
        return Signals(None, None, None, None)
    metric = project.gate.metric
    drift = connection.execute(
        "SELECT coalesce(verdict, drifted) FROM espalier.drift WHERE project = %s AND as_of = %s "
        "AND model_version = %s AND kind = 'overall' AND comparison = 'training' "
        "ORDER BY id DESC LIMIT 1",
        [project.name, as_of, champion.version],
    ).fetchone()
    live = connection.execute(
        "SELECT value, high, low FROM espalier.live_performance WHERE project = %s AND metric = %s "
        "AND model_version = %s AND role = 'champion' AND label_time <= %s "
        "ORDER BY label_time DESC, id DESC LIMIT 1",
        [project.name, metric, champion.version, as_of - project.label.horizon],
    ).fetchone()
    value, high, low = live or (None, None, None)
    expected = champion.manifest.metrics.get(metric)
    return Signals(drift[0] if drift else None, value, high, expected, low)


def _decision(
    connection: Connection,
    project: Project,
    as_of: date,
    champion: Champion | None,
    signals: Signals,
) -> tuple[str, str]:
    if champion is None:
        return "train", "there is no model yet"
    reasons = _reasons(project, signals)
    if not reasons:
        return "none", "no drift verdict, and live performance is not lost"
    asked = " and ".join(reasons)
    held = _held(connection, project, as_of, champion)
    return ("held", f"{asked}, but {held}") if held else ("train", asked)


def _reasons(project: Project, signals: Signals) -> list[str]:
    reasons = ["drift"] if signals.drift else []
    if _shortfall(project, signals):
        metric = project.gate.metric
        bound = "most" if metric in HIGHER_IS_BETTER else "least"
        reasons.append(
            f"live {metric} {signals.live_value:.3f} (at {bound} {_best(metric, signals):.3f}) "
            f"where validation promised {signals.expected:.3f}"
        )
    return reasons


def _best(metric: str, signals: Signals) -> float | None:
    """The end of the live interval that is best for the champion."""
    return signals.live_high if metric in HIGHER_IS_BETTER else signals.live_low


def _shortfall(project: Project, signals: Signals) -> float | None:
    """By how much live performance is worse than promised; 0 within the margin, None: not known."""
    metric, margin = project.gate.metric, project.retraining.performance_margin
    best, expected = _best(metric, signals), signals.expected
    if best is None or expected is None:
        return None
    rises = metric in HIGHER_IS_BETTER
    is_lost = best < expected - margin if rises else best > expected + margin
    return abs(expected - best) if is_lost else 0.0


def _held(connection: Connection, project: Project, as_of: date, champion: Champion) -> str | None:
    """What keeps it from being done; None when nothing does."""
    limits = project.retraining
    before = connection.execute(
        "SELECT max(as_of), count(*) FILTER (WHERE as_of >= date_trunc('month', %(as_of)s::date)) "
        "FROM espalier.actions WHERE project = %(project)s AND decision = 'train' "
        "AND as_of <= %(as_of)s AND outcome IS DISTINCT FROM 'impossible'",
        {"project": project.name, "as_of": as_of},
    ).fetchone()
    assert before is not None, "an aggregate gives a row"
    last, count = before
    if count >= limits.per_month:
        return f"{count} of {limits.per_month} trainings of this month are used"
    if last is not None and as_of - last < limits.cooldown:
        return f"the last one was on {last}, less than {_days(limits.cooldown)} ago"
    newest = drift_store.newest_labels(connection, project, as_of=as_of)
    validated = champion.manifest.provenance.get("validation_time", "")
    if newest is None or newest[0].isoformat() <= validated:
        return f"no labels are newer than those of {validated}, which it was validated on"
    return None


def _days(span: timedelta) -> str:
    return f"{span.days} days"
