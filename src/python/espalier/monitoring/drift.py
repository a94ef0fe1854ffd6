"""Does today's population still look like the one the model was trained on?"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd

from espalier.errors import BadData
from espalier.features import point_in_time
from espalier.monitoring import report
from espalier.monitoring.evidently_adapter import MINIMUM_ROWS, ColumnDrift, compare
from espalier.postgres.connect import Connection, connect
from espalier.project import Project

# The share of features at which drift of the whole is said; Evidently's own rule is the same.
DRIFT_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What a check found.

    `verdict` is true when `share`, the part of the features that drifted, reached `DRIFT_SHARE`,
    or the target drifted. `target` is None when there are not enough labels to compare. `html`
    and `json` are the written reports, `run_id` marks the check's rows in `espalier.drift`.
    """

    verdict: bool
    share: float
    drifted: tuple[str, ...]
    columns: Mapping[str, ColumnDrift]
    target: ColumnDrift | None
    html: Path
    json: Path
    run_id: str


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The rows of a check; labels are (reference, current)."""

    reference: pd.DataFrame
    current: pd.DataFrame
    labels: tuple[pd.Series[bool], pd.Series[bool]] | None
    reference_note: str
    target_note: str


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

    Reference: the rows that training as of `trained_as_of` uses, each with the features as they
    were known at its label time: those of the label times at least the label's horizon before the
    newest one, as in `training.split`. While labels do not reach that far back, and so no model
    can be there, those of the oldest label time.

    Current: the features of every entity as known at `as_of`.

    Target: the labels of the newest label time known at `as_of`, against those of the reference.
    It is left out when the reference holds that label time too, or labels are too few.

    Columns that grow with time by construction (tenure, totals) always drift, since the reference
    is older by the label's horizon and more; `DRIFT_SHARE` leaves room for them.

    A repeated check of a day adds rows under a new run id, replaces no row, and replaces the
    day's report files.

    Args:
        project: The product.
        as_of: The day in question.
        dsn: PostgreSQL.
        reports_dir: Holds the reports, as `evidently/<project>/<as_of>.html` and `.json`.
        model_version: The model in use, to be stored with the scores.
        trained_as_of: The day as of which that model was trained, `as_of` of its manifest's
            provenance. Not given, what training would use today is the reference.

    Raises:
        BadData: nothing is known at `as_of`, or too few rows.
        DependencyUnreachable: PostgreSQL does not answer.
        ConfigurationError: the reports cannot be written.
    """
    with connect(dsn) as connection:
        rows = _read(connection, project, as_of, trained_as_of or as_of)
        columns = project.view.features
        found = compare(rows.reference, rows.current, columns=columns, labels=rows.labels)
        drifted = tuple(name for name, column in found.columns.items() if column.drifted)
        share = len(drifted) / len(columns)
        verdict = report.Verdict(
            project=project.name,
            as_of=as_of,
            model_version=model_version,
            run_id=str(uuid.uuid4()),
            verdict=share >= DRIFT_SHARE or (found.target is not None and found.target.drifted),
            share=share,
            share_threshold=DRIFT_SHARE,
            columns=found.columns,
            target=found.target,
            reference=rows.reference_note,
            current=f"{len(rows.current)} entities as known at {as_of}",
            target_note=rows.target_note,
        )
        # Committed only after the files are there: no row speaks of a report that is not.
        _store(connection, project, verdict)
        html, json = report.write(reports_dir, verdict, found)
    return Drift(
        verdict=verdict.verdict,
        share=share,
        drifted=drifted,
        columns=found.columns,
        target=found.target,
        html=html,
        json=json,
        run_id=verdict.run_id,
    )


def _read(connection: Connection, project: Project, as_of: date, trained_as_of: date) -> _Rows:
    current = point_in_time.features_at(connection, project, when=as_of)
    if current.empty:
        raise BadData(
            f"no features of {project.name} are known at {as_of}", fix="ingest that month first"
        )
    trained = point_in_time.training_set(connection, project, as_of=trained_as_of)
    if trained.empty:
        raise BadData(
            f"no labelled rows of {project.name} are known at {trained_as_of}, so there is nothing "
            f"to compare with",
            fix="ingest the months before it",
        )
    oldest, newest = trained["label_time"].min(), trained["label_time"].max()
    last = max(oldest, newest - project.label.horizon)
    reference = trained[trained["label_time"] <= last]
    labelled = (
        trained
        if trained_as_of == as_of
        else point_in_time.training_set(connection, project, as_of=as_of)
    )
    labels, target_note = _labels(reference, labelled)
    span = _span(reference)
    return _Rows(
        reference=reference,
        current=current,
        labels=labels,
        reference_note=f"{len(reference)} labelled rows of {span}, as known at {trained_as_of}",
        target_note=target_note,
    )


def _labels(
    reference: pd.DataFrame, labelled: pd.DataFrame
) -> tuple[tuple[pd.Series[bool], pd.Series[bool]] | None, str]:
    """The two sets of labels, or None, and a sentence about them."""
    newest = labelled["label_time"].max()
    if newest <= reference["label_time"].max():
        return None, f"no labels newer than the reference's of {_span(reference)}"
    current = labelled.loc[labelled["label_time"] == newest, "label"]
    if min(len(current), len(reference)) < MINIMUM_ROWS:
        return None, f"fewer than {MINIMUM_ROWS} labels of {newest.date()} or before it"
    return (reference["label"], current), (
        f"share of positive labels {current.mean():.3f} at {newest.date()} ({len(current)} rows), "
        f"{reference['label'].mean():.3f} at {_span(reference)} ({len(reference)} rows)"
    )


def _span(rows: pd.DataFrame) -> str:
    first, last = rows["label_time"].min().date(), rows["label_time"].max().date()
    return str(first) if first == last else f"{first} to {last}"


def _store(connection: Connection, project: Project, verdict: report.Verdict) -> None:
    overall = ColumnDrift(
        method="share of drifted features",
        score=verdict.share,
        threshold=verdict.share_threshold,
        drifted=verdict.verdict,
    )
    rows: list[tuple[str, str | None, ColumnDrift]] = [
        *(("feature", name, drift) for name, drift in verdict.columns.items()),
        *([("target", project.label.column, verdict.target)] if verdict.target else []),
        ("overall", None, overall),
    ]
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO espalier.drift (run_id, project, as_of, model_version, kind, column_name, "
            "method, score, threshold, drifted) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    *(verdict.run_id, verdict.project, verdict.as_of, verdict.model_version),
                    *(kind, name, drift.method, drift.score, drift.threshold, drift.drifted),
                )
                for kind, name, drift in rows
            ],
        )
