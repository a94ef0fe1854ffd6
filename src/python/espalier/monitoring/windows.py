"""k of the last n windows: one odd month is no reason to train again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from espalier.monitoring.evidently_adapter import Comparison
from espalier.policies import Monitoring
from espalier.postgres.connect import Connection
from espalier.project import Project


@dataclass(frozen=True)
class Window:
    """One day's check and whether it drifted."""

    as_of: date
    drifted: bool


@dataclass(frozen=True)
class Decision:
    """The windows that count, oldest first, and what they say together."""

    windows: tuple[Window, ...]
    needed: int

    @property
    def drifted(self) -> int:
        """How many of them drifted."""
        return sum(window.drifted for window in self.windows)

    @property
    def verdict(self) -> bool:
        """Whether that is enough."""
        return self.drifted >= self.needed


@dataclass(frozen=True)
class Judged:
    """What a comparison says: of the features that are no trend `counted` drifted, a `share`.

    `trending` moved too, as trends do. `drifted` speaks of this day alone, `decision` of the
    windows.
    """

    counted: tuple[str, ...]
    trending: tuple[str, ...]
    share: float
    drifted: bool
    decision: Decision


def judge(found: Comparison, project: Project, *, as_of: date, before: list[Window]) -> Judged:
    """What a day's comparison and the windows before it say, by the project's declaration."""
    monitoring = project.monitoring
    trends = {name for name in found.columns if monitoring.of(name).trend}
    moved = [name for name, column in found.columns.items() if column.drifted]
    counted = tuple(name for name in moved if name not in trends)
    share = len(counted) / (len(found.columns) - len(trends))
    target = found.target is not None and found.target.drifted
    drifted = share >= monitoring.share or target
    return Judged(
        counted=counted,
        trending=tuple(name for name in moved if name in trends),
        share=share,
        drifted=drifted,
        decision=decide(before, Window(as_of, drifted), monitoring),
    )


def without(before: list[Window], project: Project) -> Judged:
    """What the windows before a day say that has nothing to compare, and so is none."""
    monitoring = project.monitoring
    kept = sorted(before, key=lambda window: window.as_of)[-monitoring.windows_n :]
    decision = Decision(tuple(kept), monitoring.windows_k)
    return Judged(counted=(), trending=(), share=0.0, drifted=False, decision=decision)


def decide(before: list[Window], today: Window, monitoring: Monitoring) -> Decision:
    """The last `windows_n` windows with today's, of which `windows_k` must have drifted.

    Args:
        before: Windows of the same reference; one of today's day counts no more.
        today: The newest window.
        monitoring: Says how many.
    """
    older = [window for window in before if window.as_of < today.as_of]
    kept = sorted([*older, today], key=lambda window: window.as_of)[-monitoring.windows_n :]
    return Decision(tuple(kept), monitoring.windows_k)


def earlier(
    connection: Connection, project: Project, *, before: date, model_version: str | None
) -> list[Window]:
    """The newest check of each day before `before` against the same model version.

    A new champion has a new reference, so its windows begin anew: what drifted from the old one's
    training rows says nothing of the new one's.
    """
    rows = connection.execute(
        "SELECT DISTINCT ON (as_of) as_of, drifted FROM espalier.drift "
        "WHERE project = %s AND kind = 'overall' AND comparison = 'training' AND as_of < %s "
        "AND model_version IS NOT DISTINCT FROM %s ORDER BY as_of DESC, id DESC LIMIT %s",
        [project.name, before, model_version, project.monitoring.windows_n - 1],
    ).fetchall()
    return [Window(as_of, drifted) for as_of, drifted in rows]
