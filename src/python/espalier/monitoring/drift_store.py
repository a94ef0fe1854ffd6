"""The rows of drift checks in PostgreSQL, and the labels that they look at."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from psycopg import sql

from espalier.features import history
from espalier.monitoring.evidently_adapter import ColumnDrift, ColumnQuality, Labels
from espalier.monitoring.report import Verdict
from espalier.postgres.connect import Connection
from espalier.project import Project


def newest_labels(
    connection: Connection, project: Project, *, as_of: date
) -> tuple[date, Labels] | None:
    """The newest label time known at `as_of` and its labels, with features or without."""
    table = project.table(project.label.table)
    found = connection.execute(
        sql.SQL(
            "SELECT day, count(*), count(*) FILTER (WHERE label) FROM ("
            " SELECT DISTINCT ON ({key}, {time}) {instant} AS day, {label} AS label FROM {labels}"
            " WHERE known_at <= %(as_of)s AND {time} = (SELECT max({time}) FROM {labels}"
            "  WHERE known_at <= %(as_of)s AND {label} IS NOT NULL)"
            " ORDER BY {key}, {time}, known_at DESC, snapshot_id DESC) AS newest "
            "WHERE label IS NOT NULL GROUP BY day"
        ).format(
            key=sql.Identifier(project.entity.join_key),
            time=sql.Identifier(project.label.time),
            instant=history.as_instant(table, project.label.time),
            label=sql.Identifier(project.label.column),
            labels=history.relation(project, table.name),
        ),
        {"as_of": history.midnight(as_of)},
    ).fetchone()
    return None if found is None else (found[0].date(), Labels(rows=found[1], positives=found[2]))


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
