-- Drift checks. Each run adds its rows under a new run_id; nothing is replaced, so that what was
-- known when a decision was made stays readable. espalier.drift_latest has the newest run of a day.
CREATE TABLE espalier.drift (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL,
    project text NOT NULL,
    as_of date NOT NULL,
    model_version text,
    -- A feature's row and the target's row hold a distance; the overall row holds the share of
    -- features that drifted, and drifted is there the verdict on the whole.
    kind text NOT NULL CHECK (kind IN ('feature', 'target', 'overall')),
    column_name text CHECK ((column_name IS NULL) = (kind = 'overall')),
    method text NOT NULL,
    score double precision NOT NULL,
    threshold double precision NOT NULL,
    drifted boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (run_id, kind, column_name)
);

CREATE INDEX drift_by_day ON espalier.drift (project, as_of, id);

CREATE VIEW espalier.drift_latest AS
SELECT drift.*
FROM espalier.drift
JOIN (
    SELECT DISTINCT ON (project, as_of) run_id
    FROM espalier.drift
    WHERE kind = 'overall'
    ORDER BY project, as_of, id DESC
) newest USING (run_id);
