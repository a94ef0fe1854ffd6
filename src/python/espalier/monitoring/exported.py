"""What the exporter tells, each metric with the query that gives it.

A query gives the labels' values in order, as text, and last the number. Label values come from
declarations and from what this platform wrote; the exporter cuts off what would be too many all
the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

PREFIX = "espalier_"


@dataclass(frozen=True)
class Metric:
    """A gauge, or a counter when its name ends in `_total`.

    A metric with `table` is left out where there is no such relation.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    query: LiteralString
    table: str | None = None


# The newest check of a project and comparison.
_DRIFT: LiteralString = (
    "WITH newest AS (SELECT DISTINCT ON (project, comparison) run_id FROM espalier.drift"
    " WHERE kind = 'overall' ORDER BY project, comparison, as_of DESC, id DESC) "
)
_AGE_OF_CHECK: LiteralString = (
    "SELECT project, comparison, extract(epoch FROM clock_timestamp() - created_at) "
)
_DRIFT_ROWS: LiteralString = "FROM espalier.drift JOIN newest USING (run_id) WHERE "
_QUALITY: LiteralString = (
    "FROM espalier.data_quality JOIN (SELECT DISTINCT ON (project) run_id"
    " FROM espalier.data_quality ORDER BY project, as_of DESC, id DESC) AS newest USING (run_id)"
)
# The newest measurement of the newest label time.
_LIVE: LiteralString = (
    "FROM espalier.live_performance_latest JOIN (SELECT project, max(label_time) AS label_time"
    " FROM espalier.live_performance GROUP BY project) AS newest USING (project, label_time)"
)
_SHADOW: LiteralString = (
    "FROM espalier.live_comparison JOIN (SELECT DISTINCT ON (project) run_id, label_time"
    " FROM espalier.live_comparison ORDER BY project, label_time DESC, id DESC) AS newest"
    " USING (run_id, label_time)"
)
_CONSISTENCY: LiteralString = (
    "FROM espalier.online_offline JOIN (SELECT DISTINCT ON (project) run_id"
    " FROM espalier.online_offline ORDER BY project, as_of DESC, id DESC) AS newest USING (run_id)"
)
METRICS: tuple[Metric, ...] = (
    Metric(
        "drift_score",
        "How far a feature or the label moved, by its declared method.",
        ("project", "comparison", "column", "method"),
        _DRIFT
        + "SELECT project, comparison, column_name, method, score "
        + _DRIFT_ROWS
        # The label has its own name, which no feature may have.
        + "kind <> 'overall'",
    ),
    Metric(
        "drift_threshold",
        "The score from which on it counts as drifted.",
        ("project", "comparison", "column"),
        _DRIFT
        + "SELECT project, comparison, column_name, threshold "
        + _DRIFT_ROWS
        + "kind <> 'overall'",
    ),
    Metric(
        "drift_column_drifted",
        "1 when it drifted; trend is true of columns declared to grow, which do not count.",
        ("project", "comparison", "column", "trend"),
        _DRIFT
        + "SELECT project, comparison, column_name, trend::text, drifted::int "
        + _DRIFT_ROWS
        + "kind <> 'overall'",
    ),
    Metric(
        "drift_share",
        "The share of the features that count which drifted at the newest check.",
        ("project", "comparison"),
        _DRIFT + "SELECT project, comparison, score " + _DRIFT_ROWS + "kind = 'overall'",
    ),
    Metric(
        "drift_window",
        "1 when the newest check's day drifted by itself.",
        ("project", "comparison"),
        _DRIFT + "SELECT project, comparison, drifted::int " + _DRIFT_ROWS + "kind = 'overall'",
    ),
    Metric(
        "drift_verdict",
        "1 when enough of the last windows drifted.",
        ("project", "comparison"),
        _DRIFT
        + "SELECT project, comparison, coalesce(verdict, drifted)::int "
        + _DRIFT_ROWS
        + "kind = 'overall'",
    ),
    Metric(
        "drift_check_age_seconds",
        "The time since the newest drift check ran.",
        ("project", "comparison"),
        _DRIFT + _AGE_OF_CHECK + _DRIFT_ROWS + "kind = 'overall'",
    ),
    Metric(
        "quality_missing_ratio",
        "The share of a feature's values that are missing at the newest check.",
        ("project", "column"),
        "SELECT project, column_name, missing / greatest(rows, 1)::float8 " + _QUALITY,
    ),
    Metric(
        "quality_out_of_range_ratio",
        "The share of a feature's values outside of the declared range at the newest check.",
        ("project", "column"),
        "SELECT project, column_name, out_of_range / greatest(rows, 1)::float8 " + _QUALITY,
    ),
    Metric(
        "quality_failed",
        "1 when a feature has values that are missing or out of range and must not be.",
        ("project", "column"),
        "SELECT project, column_name, failed::int " + _QUALITY,
    ),
    Metric(
        "live_value",
        "A metric of what was served at the newest label time that has labels.",
        ("project", "model_version", "role", "metric"),
        "SELECT project, model_version, role, metric, value " + _LIVE,
    ),
    Metric(
        "live_low",
        "The lower end of its interval.",
        ("project", "model_version", "role", "metric"),
        "SELECT project, model_version, role, metric, low " + _LIVE,
    ),
    Metric(
        "live_high",
        "The upper end of its interval.",
        ("project", "model_version", "role", "metric"),
        "SELECT project, model_version, role, metric, high " + _LIVE,
    ),
    Metric(
        "live_answers",
        "How many labels of that time had a served prediction.",
        ("project", "model_version", "role"),
        "SELECT DISTINCT project, model_version, role, rows " + _LIVE,
    ),
    Metric(
        "live_label_time_seconds",
        "The newest label time that was measured, in Unix time.",
        ("project",),
        "SELECT project, extract(epoch FROM max(label_time)) FROM espalier.live_performance "
        "GROUP BY project",
    ),
    Metric(
        "live_shortfall",
        "How much worse than promised the champion does for sure, by its gate's metric; 0: it does not.",
        ("project",),
        "SELECT project, live_shortfall FROM (SELECT DISTINCT ON (project) project, live_shortfall"
        " FROM espalier.actions ORDER BY project, as_of DESC, id DESC) AS newest"
        " WHERE live_shortfall IS NOT NULL",
    ),
    Metric(
        "shadow_difference",
        "The shadow's metric less the champion's, on the same rows of the newest label time.",
        ("project", "champion", "shadow", "metric"),
        "SELECT project, champion, shadow, metric, difference " + _SHADOW,
    ),
    Metric(
        "online_offline_mismatch_ratio",
        "The share of sampled predictions whose feature was not as the history says.",
        ("project", "column"),
        "SELECT project, column_name, mismatches / greatest(rows, 1)::float8 "
        + _CONSISTENCY
        + " WHERE column_name IS NOT NULL",
    ),
    Metric(
        "online_offline_mismatched_ratio",
        "The share of sampled predictions with any such feature.",
        ("project",),
        "SELECT project, mismatches / greatest(rows, 1)::float8 "
        + _CONSISTENCY
        + " WHERE column_name IS NULL",
    ),
    Metric(
        "online_offline_stale_ratio",
        "The share of sampled predictions served though newer features were known.",
        ("project",),
        "SELECT project, stale / greatest(rows, 1)::float8 "
        + _CONSISTENCY
        + " WHERE column_name IS NULL",
    ),
    Metric(
        "online_offline_sampled",
        "How many predictions were compared.",
        ("project",),
        "SELECT project, rows " + _CONSISTENCY + " WHERE column_name IS NULL",
    ),
    Metric(
        "snapshot_age_seconds",
        "The time since the day of which the newest snapshot tells.",
        ("project",),
        "SELECT project, extract(epoch FROM clock_timestamp() - max(as_of)) "
        "FROM espalier.snapshots GROUP BY project",
    ),
    Metric(
        "snapshot_stored_age_seconds",
        "The time since a snapshot was stored last.",
        ("project",),
        "SELECT project, extract(epoch FROM clock_timestamp() - max(created_at)) "
        "FROM espalier.snapshots GROUP BY project",
    ),
    Metric(
        "snapshots",
        "How many snapshots there are.",
        ("project",),
        "SELECT project, count(*) FROM espalier.snapshots GROUP BY project",
    ),
    Metric(
        "quarantined_rows",
        "Faulty rows that were kept, by what became of them.",
        ("project", "table", "state"),
        'SELECT project, "table", state, count(*) FROM espalier.quarantine GROUP BY 1, 2, 3',
        table="espalier.quarantine",
    ),
    Metric(
        "flow_last_success_timestamp_seconds",
        "When a run of the flow completed last, in Unix time.",
        ("project", "flow"),
        "SELECT project, flow, extract(epoch FROM max(ended_at)) FROM espalier.flow_runs "
        "WHERE state IN ('completed', 'refused') GROUP BY project, flow",
    ),
    Metric(
        "flow_duration_seconds",
        "How long the flow's last completed run took.",
        ("project", "flow"),
        "SELECT DISTINCT ON (project, flow) project, flow, "
        "extract(epoch FROM ended_at - started_at) FROM espalier.flow_runs "
        "WHERE state IN ('completed', 'refused') ORDER BY project, flow, id DESC",
    ),
    Metric(
        "flow_runs_total",
        "Runs of the flow that ended, by how: refused means that a gate or check said no.",
        ("project", "flow", "state"),
        "SELECT project, flow, state, count(*) FROM espalier.flow_runs GROUP BY 1, 2, 3",
    ),
    Metric(
        "flow_last_run_failed",
        "1 when the newest run of the flow that ended, ended by an error.",
        ("project", "flow"),
        "SELECT DISTINCT ON (project, flow) project, flow, (state = 'failed')::int "
        "FROM espalier.flow_runs ORDER BY project, flow, id DESC",
    ),
    Metric(
        "champion_info",
        "1, with the version that was made champion last.",
        ("project", "version"),
        "SELECT DISTINCT ON (project) project, to_version, 1 FROM espalier.ledger "
        "ORDER BY project, id DESC",
    ),
    Metric(
        "champion_age_seconds",
        "The time since it was made champion.",
        ("project",),
        "SELECT DISTINCT ON (project) project, extract(epoch FROM clock_timestamp() - at) "
        "FROM espalier.ledger ORDER BY project, id DESC",
    ),
    Metric(
        "promotions_total",
        "Changes of the champion.",
        ("project", "kind"),
        "SELECT project, kind, count(*) FROM espalier.ledger GROUP BY project, kind",
    ),
)
