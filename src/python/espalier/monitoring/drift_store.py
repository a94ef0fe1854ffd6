"""The rows of drift checks in PostgreSQL, and the labels that they look at."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from psycopg import sql

from espalier.features import history
from espalier.features.columns import read_columns
from espalier.monitoring import sketch
from espalier.monitoring.evidently_adapter import ColumnDrift, ColumnQuality
from espalier.monitoring.report import Verdict
from espalier.monitoring.target import ClassLabels, Labels, TargetLabels
from espalier.postgres.connect import Connection
from espalier.project import Project, Task


def newest_labels(
    connection: Connection, project: Project, *, as_of: date
) -> tuple[date, TargetLabels] | None:
    """The newest label time known at `as_of` and its labels, with features or without."""
    table = project.table(project.label.table)
    parts: dict[str, sql.Composable] = {
        "key": sql.Identifier(project.entity.join_key),
        "time": sql.Identifier(project.label.time),
        "instant": history.as_instant(table, project.label.time),
        "label": sql.Identifier(project.label.column),
        "labels": history.relation(project, table.name),
    }
    parts["known"] = sql.SQL(
        "FROM ("
        " SELECT DISTINCT ON ({key}, {time}) {instant} AS day, {label} AS label FROM {labels}"
        " WHERE known_at <= %(as_of)s AND {time} = (SELECT max({time}) FROM {labels}"
        "  WHERE known_at <= %(as_of)s AND {label} IS NOT NULL)"
        " ORDER BY {key}, {time}, known_at DESC, snapshot_id DESC) AS newest "
        "WHERE label IS NOT NULL"
    ).format(**parts)
    at = {"as_of": history.midnight(as_of)}
    if project.task is Task.REGRESSION:
        numbers = sql.SQL("SELECT label::double precision {known}").format(**parts)
        (found,) = read_columns(connection, numbers, ("float8",), at)
        when = connection.execute(sql.SQL("SELECT max(day) {known}").format(**parts), at).fetchone()
        assert when is not None, "an aggregate gives a row"
        return (when[0].date(), sketch.of_values(found)) if len(found) else None
    rows = connection.execute(
        sql.SQL("SELECT day, label::text, count(*) {known} GROUP BY 1, 2 ORDER BY 2").format(
            **parts
        ),
        at,
    ).fetchall()
    if not rows:
        return None
    counts = {name: count for _, name, count in rows}
    if project.task is Task.BINARY:
        labels = Labels(rows=sum(counts.values()), positives=counts.get("true", 0))
        return rows[0][0].date(), labels
    return rows[0][0].date(), ClassLabels(counts=counts)


def add(connection: Connection, project: Project, verdict: Verdict) -> None:
    """One row for each column, one for the target, and last the overall one."""
    overall = ColumnDrift(
        method="share of drifted features",
        score=verdict.share,
        threshold=verdict.share_threshold,
        drifted=verdict.drifted,
    )
    rows: list[tuple[str, str | None, ColumnDrift]] = [
        *(("feature", name, drift) for name, drift in verdict.columns.items()),
        *([("target", project.label.column, verdict.target)] if verdict.target else []),
        ("overall", None, overall),
    ]
    decision = (verdict.verdict, verdict.windows_drifted, verdict.windows_seen)
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO espalier.drift (run_id, project, as_of, model_version, comparison, kind, "
            "column_name, method, score, threshold, drifted, trend, verdict, windows_drifted, "
            "windows_seen) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    *(verdict.run_id, verdict.project, verdict.as_of, verdict.model_version),
                    *(verdict.comparison, kind, name),
                    *(drift.method, drift.score, drift.threshold, drift.drifted),
                    kind == "feature" and name in verdict.trends,
                    *(decision if kind == "overall" else (None, None, None)),
                )
                for kind, name, drift in rows
            ],
        )


def add_quality(
    connection: Connection, verdict: Verdict, columns: Mapping[str, ColumnQuality]
) -> None:
    """One row for each column, under the check's run id."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO espalier.data_quality (run_id, project, as_of, column_name, rows, "
            "missing, out_of_range, failed) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    *(verdict.run_id, verdict.project, verdict.as_of, name),
                    *(column.rows, column.missing, column.out_of_range, column.failed),
                )
                for name, column in columns.items()
            ],
        )
