"""What months of ingest, monitor, train and materialize leave of the project churn, made up."""

from __future__ import annotations

SQL = """
INSERT INTO espalier.snapshots
    (project, as_of, revision, digest, files, row_counts, validation, created_by)
SELECT 'churn', day, 1, day::text, '{}', '{}', '{}', 'test'
FROM (VALUES (date '1998-04-30'), ('1998-05-31'), ('1998-06-30')) AS days(day);

INSERT INTO espalier.quarantine_batches
    (project, as_of, outcome, snapshot_id, files, row_counts, faulty_counts, created_by)
SELECT 'churn', '1998-06-30', 'stored', max(id), '{}', '{}', '{"users": 2}', 'test'
FROM espalier.snapshots;
INSERT INTO espalier.quarantine_rows (batch_id, table_name, line, row, column_name, rule, reason)
SELECT max(id), 'users', line, '{}', 'first_amount', 'range', 'too much'
FROM espalier.quarantine_batches, generate_series(7, 8) AS line GROUP BY line;

INSERT INTO espalier.ledger (project, to_version, who, why, evidence)
VALUES ('churn', '1', 'test', 'first', '{}');

INSERT INTO espalier.drift (run_id, project, as_of, comparison, kind, column_name, method, score,
    threshold, drifted, trend, verdict)
SELECT run::uuid, 'churn', '1998-06-30', comparison, kind, name, method, score, 0.2, drifted,
    trend, verdict
FROM (VALUES
    ('10000000-0000-0000-0000-000000000000', 'training', 'feature', 'orders_90d', 'wasserstein',
     0.3, true, false, NULL::boolean),
    ('10000000-0000-0000-0000-000000000000', 'training', 'feature', 'tenure_days', 'wasserstein',
     4.0, true, true, NULL),
    ('10000000-0000-0000-0000-000000000000', 'training', 'overall', NULL, 'share', 0.25, true,
     false, true),
    ('20000000-0000-0000-0000-000000000000', 'served', 'overall', NULL, 'share', 0.125, false,
     false, NULL)
) AS rows(run, comparison, kind, name, method, score, drifted, trend, verdict);

INSERT INTO espalier.data_quality (run_id, project, as_of, column_name, rows, missing,
    out_of_range, failed)
VALUES ('30000000-0000-0000-0000-000000000000', 'churn', '1998-06-30', 'orders_90d', 200, 0, 4, true),
       ('30000000-0000-0000-0000-000000000000', 'churn', '1998-06-30', 'mean_gap_days', 200, 50, 0,
        false);

INSERT INTO espalier.live_performance (run_id, project, label_time, model_version, role, metric,
    value, low, high, rows, positives, unserved)
SELECT '40000000-0000-0000-0000-000000000000', 'churn', '1998-03-31', version, role, metric, value,
    value - 0.05, value + 0.05, 90, 40, 10
FROM (VALUES ('1', 'champion', 'roc_auc', 0.8), ('1', 'champion', 'pr_auc', 0.9),
             ('1', 'champion', 'brier', 0.125), ('2', 'shadow', 'roc_auc', 0.75))
    AS rows(version, role, metric, value);
INSERT INTO espalier.live_comparison (run_id, project, label_time, champion, shadow, metric,
    champion_value, shadow_value, difference, low, high, rows)
VALUES ('40000000-0000-0000-0000-000000000000', 'churn', '1998-03-31', '1', '2', 'roc_auc', 0.8,
    0.75, -0.05, -0.08, -0.02, 90);

INSERT INTO espalier.online_offline (run_id, project, as_of, column_name, rows, mismatches,
    unknown, stale)
VALUES ('50000000-0000-0000-0000-000000000000', 'churn', '1998-06-30', 'orders_90d', 200, 1, NULL,
        NULL),
       ('50000000-0000-0000-0000-000000000000', 'churn', '1998-06-30', NULL, 200, 1, 0, 2);

INSERT INTO espalier.flow_runs (project, flow, state, started_at, ended_at)
SELECT 'churn', flow, state, now() - '90 seconds'::interval, now() - '60 seconds'::interval
FROM (VALUES ('ingest', 'completed'), ('materialize', 'completed'), ('train', 'completed'),
             ('train', 'failed'), ('monitor', 'refused')) AS runs(flow, state);
"""
