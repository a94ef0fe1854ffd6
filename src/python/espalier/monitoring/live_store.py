"""What live performance was measured, in PostgreSQL; rows are only added."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from espalier.monitoring.performance import Live
from espalier.postgres.connect import Connection
from espalier.project import Project


def measured(connection: Connection, project: Project) -> dict[date, int | None]:
    """The label times that were measured, and the newest snapshot of the labels they had then."""
    rows = connection.execute(
        "SELECT DISTINCT ON (label_time) label_time, labels_snapshot "
        "FROM espalier.live_performance WHERE project = %s ORDER BY label_time, id DESC",
        [project.name],
    ).fetchall()
    return dict(rows)


def store(
    connection: Connection,
    project: Project,
    found: Live,
    snapshots: Mapping[date, int],
) -> None:
    """Add a run; `snapshots` are the newest of each label time's labels."""
    run_id = found.run_id
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO espalier.live_performance (run_id, project, label_time, model_version, "
            "role, metric, value, low, high, rows, positives, unserved, labels_snapshot) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    *(run_id, project.name, one.label_time, one.model_version, one.role, name),
                    *(measured.value, measured.interval.low, measured.interval.high),
                    *(one.rows, one.positives, one.unserved, snapshots[one.label_time]),
                )
                for one in found.performances
                for name, measured in one.metrics.items()
            ],
        )
        cursor.executemany(
            "INSERT INTO espalier.live_calibration (run_id, project, label_time, model_version, "
            "role, bin, rows, mean_score, positive_share) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    *(run_id, project.name, one.label_time, one.model_version, one.role, number),
                    *(group.rows, group.mean_score, group.positive_share),
                )
                for one in found.performances
                for number, group in enumerate(one.calibration)
            ],
        )
        cursor.executemany(
            "INSERT INTO espalier.live_comparison (run_id, project, label_time, champion, shadow, "
            "metric, champion_value, shadow_value, difference, low, high, rows) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    *(run_id, project.name, one.label_time, one.champion, one.shadow, name),
                    *(one.champion_metrics[name], one.shadow_metrics[name]),
                    *(gained.value, gained.interval.low, gained.interval.high, one.rows),
                )
                for one in found.comparisons
                for name, gained in one.differences.items()
            ],
        )
