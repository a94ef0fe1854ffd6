-- Labels may be revised after they were measured: the newest snapshot among a label time's labels
-- when it was measured. Null in rows of older releases, which are measured once more.
ALTER TABLE espalier.live_performance ADD COLUMN labels_snapshot bigint;

CREATE OR REPLACE VIEW espalier.live_performance_latest AS
SELECT DISTINCT ON (project, label_time, model_version, role, metric) *
FROM espalier.live_performance
ORDER BY project, label_time, model_version, role, metric, id DESC;
