"""Does today's population still look like the one the model was trained on?

A check of a day has three parts: the model's training rows against today's features and newest
labels, which alone gives the verdict; what was served against the history of the same event time;
and the quality of today's features.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pandas as pd

from espalier.errors import BadData
from espalier.features import point_in_time
from espalier.monitoring import drift_store, reference, report, served, sketch, target, windows
from espalier.monitoring.evidently_adapter import (
    MINIMUM_ROWS,
    ColumnDrift,
    ColumnQuality,
    Comparison,
    Rule,
    compare,
    quality,
)
from espalier.monitoring.reference import Reference
from espalier.monitoring.target import TargetLabels
from espalier.monitoring.windows import Window
from espalier.postgres.connect import Connection, connect
from espalier.project import Project


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What a check found.

    `verdict` is true when enough of `windows`, this day's the last, drifted. `window` is this day
    alone: `share`, the part of the features that drifted and are no trend, reached the declared
    share, or the target drifted. `drifted` names those features, `trending` the trends that moved,
    which do not count. `target` is None when there are not enough labels to compare. `served` is
    the comparison with what was served, None when too little was. `html` and `json` are the written
    reports, `run_id` marks the check's rows in `espalier.drift`. `nothing` says why today's features
    were not compared, if so: then this day is no window, and `espalier.drift` has no row of it.
    """

    verdict: bool
    window: bool
    windows: tuple[Window, ...]
    share: float
    drifted: tuple[str, ...]
    trending: tuple[str, ...]
    columns: Mapping[str, ColumnDrift]
    target: ColumnDrift | None
    served: Mapping[str, ColumnDrift] | None
    quality: Mapping[str, ColumnQuality]
    html: Path
    json: Path
    run_id: str
    nothing: str = ""

    @property
    def failed_quality(self) -> tuple[str, ...]:
        """The columns with values that are missing or out of range and must not be."""
        return tuple(name for name, column in self.quality.items() if column.failed)


def check_drift(
    project: Project,
    *,
    as_of: date,
    dsn: str,
    reports_dir: Path,
    model_version: str | None = None,
    trained_as_of: date | None = None,
) -> Drift:
    """Compare the features known at `as_of` with those that training used; store and report it.

    Reference: the rows that training as of `trained_as_of` uses, see `reference.of_training`. With
    a model version their statistics are stored, and later checks do not read the rows.

    Current: the features of every entity as known at `as_of`.

    Target: the labels of the newest label time known at `as_of`, against those of the reference.
    It is left out when the reference holds that label time too, or labels are too few.

    Labels with a horizon of 0 come with their features, so a model may be trained on the very rows
    that are current; then there is nothing to compare, which is said and reported.

    A repeated check of a day adds rows under a new run id, replaces no row, and replaces the
    day's report files.

    Args:
        project: The product; its `monitoring` says what counts as drift.
        as_of: The day in question.
        dsn: PostgreSQL.
        reports_dir: Holds the reports, as `evidently/<project>/<as_of>.html` and `.json`, and those
            of the parts beside them, `<as_of>-served` and `<as_of>-quality`.
        model_version: The model in use; a verdict counts the windows of one version.
        trained_as_of: The day as of which that model was trained, `as_of` of its manifest's
            provenance. Not given, what training would use today is the reference.

    Raises:
        BadData: nothing is known at `as_of`.
        TooFewRows: too few rows are known.
        DependencyUnreachable: PostgreSQL does not answer.
        ConfigurationError: the reports cannot be written.
    """
    with connect(dsn) as connection:
        current = point_in_time.features_at(connection, project, when=as_of)
        if current.empty:
            raise BadData(
                f"no features of {project.name} are known at {as_of}", fix="ingest that month first"
            )
        trained = reference.obtain(
            connection, project, trained_as_of=trained_as_of or as_of, model_version=model_version
        )
        before = windows.earlier(connection, project, before=as_of, model_version=model_version)
        nothing = _nothing(project, trained, current)
        if nothing:
            found = Comparison(columns={}, target=None, html=report.EMPTY, report={})
            judged = windows.without(before, project)
            target_note = "not compared"
        else:
            labels, target_note = _labels(connection, project, trained, as_of)
            found = compare(
                trained.columns,
                sketch.of_frame(current, project.view.features),
                rules=rules(project),
                labels=labels,
                target_threshold=project.monitoring.target_threshold,
            )
            judged = windows.judge(found, project, as_of=as_of, before=before)
        page = _page(project, as_of, model_version, found, judged, nothing=nothing).telling(
            reference=trained.note,
            current=f"{len(current)} entities as known at {as_of}",
            target_note=target_note,
        )
        declared = project.table(project.view.table)
        checked = quality(current, [declared.column(name) for name in project.view.features])
        parts = [("", page, found)]
        if (against := _served(connection, project, as_of, model_version)) is not None:
            parts.append(("served", *against))
        # Committed only after the files are there: no row speaks of a report that is not.
        for part, verdict, comparison in parts:
            if not verdict.nothing:
                drift_store.add(connection, project, verdict)
            files = report.paths(reports_dir, project.name, as_of, part)
            report.write(files, comparison.html, comparison.report, verdict)
        drift_store.add_quality(connection, page, checked.columns)
        files = report.paths(reports_dir, project.name, as_of, "quality")
        report.write(files, checked.html, checked.report)
    html, json = report.paths(reports_dir, project.name, as_of)
    return Drift(
        verdict=judged.decision.verdict,
        window=judged.drifted,
        windows=judged.decision.windows,
        share=judged.share,
        drifted=judged.counted,
        trending=judged.trending,
        columns=found.columns,
        target=found.target,
        served=None if against is None else against[1].columns,
        quality=checked.columns,
        html=html,
        json=json,
        run_id=page.run_id,
        nothing=nothing,
    )


def rules(project: Project) -> dict[str, Rule]:
    """How each feature is compared, as declared."""
    found = {}
    for name in project.view.features:
        declared = project.monitoring.of(name)
        assert declared.method is not None, "filled in by the project"
        assert declared.threshold is not None, "filled in by the project"
        found[name] = Rule(
            method=declared.method,
            threshold=declared.threshold,
            null_share=project.monitoring.null_share,
        )
    return found


def _nothing(project: Project, trained: Reference, current: pd.DataFrame) -> str:
    """Why there is nothing to compare; empty when there is.

    Where labels come later, features are always newer than those with labels.
    """
    newest = current["feature_time"].max().date()
    if project.label.horizon or newest > trained.last:
        return ""
    return f"the features of {newest} are those that the model was trained on; none are newer"


def _labels(
    connection: Connection, project: Project, trained: Reference, as_of: date
) -> tuple[tuple[TargetLabels, TargetLabels] | None, str]:
    """The two sets of labels, or None, and a sentence about them."""
    found = drift_store.newest_labels(connection, project, as_of=as_of)
    if found is None or found[0] <= trained.last:
        return None, f"no labels newer than the reference's of {trained.span}"
    newest, current = found
    before = trained.labels
    if min(current.rows, before.rows) < MINIMUM_ROWS:
        return None, f"fewer than {MINIMUM_ROWS} labels of {newest} or before it"
    return (before, current), (
        f"{target.told(current)} at {newest} ({current.rows} rows), "
        f"{target.told(before, short=True)} at {trained.span} ({before.rows} rows)"
    )


def _served(
    connection: Connection, project: Project, as_of: date, model_version: str | None
) -> tuple[report.Verdict, Comparison] | None:
    """What was served of one event time against what the history says of it; None of too little."""
    logged = served.newest(connection, project, as_of=as_of)
    if logged is None or logged.entities < MINIMUM_ROWS:
        return None
    everyone = point_in_time.features_at(connection, project, when=logged.feature_day)
    if len(everyone) < MINIMUM_ROWS:
        return None
    found = compare(
        sketch.of_frame(everyone, project.view.features), logged.columns, rules=rules(project)
    )
    # Both sides are of one time, so nothing can be a trend, and a day stands for itself.
    plain = replace(
        project,
        monitoring=replace(project.monitoring, columns=(), windows_k=1, windows_n=1),
    )
    judged = windows.judge(found, plain, as_of=as_of, before=[])
    page = _page(plain, as_of, model_version, found, judged, comparison="served")
    return page.telling(
        reference=f"{len(everyone)} entities as known at {logged.feature_day}",
        current=f"{logged.entities} entities as served of {logged.feature_day}",
        target_note="not part of this",
    ), found


def _page(
    project: Project,
    as_of: date,
    model_version: str | None,
    found: Comparison,
    judged: windows.Judged,
    *,
    comparison: str = "training",
    nothing: str = "",
) -> report.Verdict:
    return report.Verdict(
        project=project.name,
        as_of=as_of,
        model_version=model_version,
        run_id=str(uuid.uuid4()),
        comparison=comparison,
        verdict=judged.decision.verdict,
        drifted=judged.drifted,
        windows_drifted=judged.decision.drifted,
        windows_seen=len(judged.decision.windows),
        windows_needed=judged.decision.needed,
        share=judged.share,
        share_threshold=project.monitoring.share,
        columns=found.columns,
        trends=tuple(n for n in found.columns if project.monitoring.of(n).trend),
        target=found.target,
        nothing=nothing,
    )
