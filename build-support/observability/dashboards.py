"""The dashboards of data, drift and flows: what the exporter tells."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from observability.panels import (
    HALF,
    Panel,
    Query,
    bars,
    board,
    choice,
    lines,
    mark,
    number,
    states,
    yes_no,
)

_PROJECT = 'project=~"$project"'
_TRAINING = f'{_PROJECT},comparison="training"'
_CHOICE = choice("project", "Project", "label_values(espalier_snapshots, project)")
_PROMOTED = mark(
    "Promotions",
    f"espalier_champion_info{{{_PROJECT}}} unless espalier_champion_info{{{_PROJECT}}} offset 2m",
    "blue",
)


def data() -> Dashboard:
    """Snapshots, quality, quarantine, and whether the online store holds what it should."""
    return board(
        "espalier-data",
        "Espalier: data and features",
        "Which data there are, how good they are, and whether they are served as stored.",
        variables=[_CHOICE],
        since="now-24h",
        rows=[
            (
                "Snapshots",
                [
                    number(
                        "Snapshots",
                        "How many snapshots are stored.",
                        "short",
                        Query(f"sum(espalier_snapshots{{{_PROJECT}}})"),
                    ),
                    number(
                        "Stored",
                        "How long ago a snapshot was stored last.",
                        "s",
                        Query(f"min(espalier_snapshot_stored_age_seconds{{{_PROJECT}}})"),
                    ),
                    number(
                        "Quarantine",
                        "Faulty rows that wait: replay them, or a later batch supersedes them.",
                        "short",
                        Query(
                            f'sum(espalier_quarantined_rows{{{_PROJECT},state="open"}}) or vector(0)'
                        ),
                        limits=[(1, "orange")],
                    ),
                    yes_no(
                        "Quality failed",
                        "Whether a feature has missing or out-of-range values that must not be.",
                        Query(f"max(espalier_quality_failed{{{_PROJECT}}})"),
                        bad=True,
                    ),
                    yes_no(
                        "Exporter reads",
                        "Whether the exporter reads the database; without it this page is empty.",
                        Query("min(espalier_exporter_up)"),
                    ),
                    number(
                        "Left out",
                        "Metrics that failed, were slow or had too many series at the last scrape.",
                        "short",
                        Query(
                            "sum(espalier_exporter_failed_metrics) + sum(espalier_exporter_cut_metrics)"
                        ),
                        limits=[(1, "orange")],
                    ),
                    lines(
                        "Age of the data",
                        "Time since the day of which the newest snapshot tells.",
                        "s",
                        Query(f"espalier_snapshot_age_seconds{{{_PROJECT}}}", "{{project}}"),
                        width=HALF,
                    ),
                    lines(
                        "Quarantined rows",
                        "Faulty rows that were kept, by what became of them.",
                        "short",
                        Query(
                            f"espalier_quarantined_rows{{{_PROJECT}}}",
                            "{{project}} {{table}} {{state}}",
                        ),
                        width=HALF,
                    ),
                ],
            ),
            (
                "Features",
                [
                    lines(
                        "Missing values",
                        "Share of a feature's values that are missing at the newest check.",
                        "percentunit",
                        Query(f"espalier_quality_missing_ratio{{{_PROJECT}}}", "{{column}}"),
                        width=HALF,
                    ),
                    lines(
                        "Values out of range",
                        "Share of a feature's values outside of the declared range.",
                        "percentunit",
                        Query(f"espalier_quality_out_of_range_ratio{{{_PROJECT}}}", "{{column}}"),
                        width=HALF,
                    ),
                    lines(
                        "Age of the online store",
                        "Time since the newest features of each table happened, by the wall clock.",
                        "s",
                        Query('espalier_feature_age_seconds{job="espalier-exporter"}', "{{table}}"),
                        width=HALF,
                    ),
                    lines(
                        "Online against offline",
                        "Share of sampled predictions with a feature that is not in the history "
                        "(mismatched), or made though newer features were known (stale).",
                        "percentunit",
                        Query(
                            f"espalier_online_offline_mismatched_ratio{{{_PROJECT}}}",
                            "{{project}} mismatched",
                        ),
                        Query(
                            f"espalier_online_offline_stale_ratio{{{_PROJECT}}}",
                            "{{project}} stale",
                        ),
                        width=HALF,
                    ),
                    bars(
                        "Mismatches by feature",
                        "Share of sampled predictions whose feature was not as the history says.",
                        "percentunit",
                        Query(
                            f"espalier_online_offline_mismatch_ratio{{{_PROJECT}}}", "{{column}}"
                        ),
                        limit=0.001,
                    ),
                    lines(
                        "Predictions compared",
                        "How many predictions the newest comparison sampled.",
                        "short",
                        Query(f"espalier_online_offline_sampled{{{_PROJECT}}}", "{{project}}"),
                        width=HALF,
                    ),
                ],
            ),
        ],
    )


def drift() -> Dashboard:
    """How far the data moved, and how good what was served turned out to be."""
    threshold = (
        f"espalier_drift_score{{{_TRAINING}}} / on (project, comparison, column) group_left () "
        f"espalier_drift_threshold{{{_TRAINING}}}"
    )

    def live(title: str, metric: str, what: str) -> Panel:
        chosen = f'{{{_PROJECT},metric=~"{metric}"}}'
        name = "{{project}} {{metric}} v{{model_version}} {{role}}"
        return lines(
            title,
            f"{what}, of what was served at the newest label time, with its interval.",
            "none",
            Query(f"espalier_live_value{chosen}", name),
            Query(f"espalier_live_low{chosen}", f"{name} low"),
            Query(f"espalier_live_high{chosen}", f"{name} high"),
        )

    return board(
        "espalier-drift",
        "Espalier: drift and model performance",
        "How far the data moved from the champion's training set, and how its predictions held.",
        variables=[_CHOICE],
        since="now-7d",
        marks=[_PROMOTED],
        rows=[
            (
                "Drift",
                [
                    yes_no(
                        "Verdict",
                        "Whether enough of the last windows drifted.",
                        Query(f"max(espalier_drift_verdict{{{_TRAINING}}})"),
                        bad=True,
                    ),
                    yes_no(
                        "Newest window",
                        "Whether the newest check's day drifted by itself.",
                        Query(f"max(espalier_drift_window{{{_TRAINING}}})"),
                        bad=True,
                    ),
                    number(
                        "Features that moved",
                        "Share of the features that count which drifted at the newest check.",
                        "percentunit",
                        Query(f"max(espalier_drift_share{{{_TRAINING}}})"),
                    ),
                    number(
                        "Last check",
                        "How long ago drift was checked.",
                        "s",
                        Query(f"min(espalier_drift_check_age_seconds{{{_TRAINING}}})"),
                    ),
                    number(
                        "Champion",
                        "The version that was made champion last.",
                        "none",
                        Query(f"espalier_champion_info{{{_PROJECT}}}", "{{project}} v{{version}}"),
                        named=True,
                    ),
                    number(
                        "Champion since",
                        "How long ago it was made champion.",
                        "s",
                        Query(f"min(espalier_champion_age_seconds{{{_PROJECT}}})"),
                    ),
                    bars(
                        "Distance from the training set",
                        "Each column's distance by its method, in its thresholds: 1 has drifted. "
                        "Columns declared a trend are shown and do not count.",
                        "none",
                        Query(threshold, "{{column}} ({{method}})"),
                        limit=1,
                    ),
                    lines(
                        "Distance over time",
                        "The same over time.",
                        "none",
                        Query(threshold, "{{project}} {{column}}"),
                        width=HALF,
                    ),
                    states(
                        "Columns that drifted",
                        "Which columns were over their threshold; trend=true do not count.",
                        Query(
                            f"espalier_drift_column_drifted{{{_TRAINING}}}",
                            "{{column}} trend={{trend}}",
                        ),
                    ),
                    lines(
                        "Served against the history",
                        "Share of features in which what was served differs from what the history "
                        "says of everyone; it has no part in the verdict.",
                        "percentunit",
                        Query(
                            f'espalier_drift_share{{{_PROJECT},comparison="served"}}', "{{project}}"
                        ),
                        width=HALF,
                    ),
                ],
            ),
            (
                "Live performance",
                [
                    live("ROC-AUC, R²", "roc_auc|r2", "How well the scores rank, or fit numbers"),
                    live(
                        "PR-AUC, accuracy",
                        "pr_auc|accuracy|balanced_accuracy",
                        "Precision over recall; of several classes the share that was right",
                    ),
                    live(
                        "Errors",
                        "brier|log_loss|rmse|mae",
                        "Errors of the probabilities, or of the numbers; less is better",
                    ),
                    lines(
                        "Labels with a served prediction",
                        "How many labels of the newest label time had one.",
                        "short",
                        Query(
                            f"espalier_live_answers{{{_PROJECT}}}",
                            "{{project}} v{{model_version}} {{role}}",
                        ),
                    ),
                    lines(
                        "Newest label time",
                        "The newest time whose labels are known and were measured.",
                        "dateTimeAsIso",
                        Query(
                            f"espalier_live_label_time_seconds{{{_PROJECT}}} * 1000", "{{project}}"
                        ),
                    ),
                    lines(
                        "Shadow less champion",
                        "The challenger's metric less the champion's on the same rows.",
                        "none",
                        Query(
                            f"espalier_shadow_difference{{{_PROJECT}}}",
                            "{{metric}}: v{{shadow}} less v{{champion}}",
                        ),
                        signed=True,
                    ),
                ],
            ),
        ],
    )


def flows() -> Dashboard:
    """What ran, how long, and how it ended."""
    return board(
        "espalier-flows",
        "Espalier: flows",
        "Runs of the flows, as they recorded them; Prefect's page has their logs.",
        variables=[_CHOICE],
        since="now-7d",
        marks=[_PROMOTED],
        rows=[
            (
                "Runs",
                [
                    bars(
                        "Since the last success",
                        "Time since a run of the flow completed.",
                        "s",
                        Query(
                            f"time() - espalier_flow_last_success_timestamp_seconds{{{_PROJECT}}}",
                            "{{project}} {{flow}}",
                        ),
                        limit=3_024_000,
                    ),
                    states(
                        "The last run failed",
                        "Whether the newest run of the flow ended by an error.",
                        Query(
                            f"espalier_flow_last_run_failed{{{_PROJECT}}}", "{{project}} {{flow}}"
                        ),
                    ),
                    lines(
                        "Duration",
                        "How long the flow's last completed run took.",
                        "s",
                        Query(
                            f"espalier_flow_duration_seconds{{{_PROJECT}}}", "{{project}} {{flow}}"
                        ),
                        width=HALF,
                    ),
                    lines(
                        "Runs that ended",
                        "By how they ended; refused means that a gate or check said no.",
                        "short",
                        Query(
                            f"sum by (project, flow, state) (espalier_flow_runs_total{{{_PROJECT}}})",
                            "{{project}} {{flow}} {{state}}",
                        ),
                        width=HALF,
                    ),
                    lines(
                        "Changes of the champion",
                        "Promotions and rollbacks so far.",
                        "short",
                        Query(f"espalier_promotions_total{{{_PROJECT}}}", "{{project}} {{kind}}"),
                        width=HALF,
                    ),
                    lines(
                        "The exporter's scrape",
                        "How long the exporter takes to ask PostgreSQL; 8 s is its limit.",
                        "s",
                        Query("espalier_exporter_scrape_seconds", "{{instance}}"),
                        width=HALF,
                    ),
                ],
            ),
        ],
    )
