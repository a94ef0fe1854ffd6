-- What monitoring and batch scoring keep. Measurements are only added, each run under its own id, so
-- that what was known when a decision was made stays readable; a `_latest` view has the newest run.

-- Drift: a day is one window, and the verdict needs k of the last n of them.
ALTER TABLE espalier.drift
    -- 'training': the model's training rows against today's features; 'served': today's features
    -- against those that were served.
    ADD COLUMN comparison text NOT NULL DEFAULT 'training'
        CHECK (comparison IN ('training', 'served')),
    -- Grows with time by construction: reported, not counted.
    ADD COLUMN trend boolean NOT NULL DEFAULT false,
    -- Of the overall row: in it `drifted` speaks of this day alone. Null in rows of older releases.
    ADD COLUMN verdict boolean,
    ADD COLUMN windows_drifted int,
    ADD COLUMN windows_seen int;

DROP VIEW espalier.drift_latest;
CREATE VIEW espalier.drift_latest AS
SELECT drift.*
FROM espalier.drift
JOIN (
    SELECT DISTINCT ON (project, as_of, comparison) run_id
    FROM espalier.drift
    WHERE kind = 'overall'
    ORDER BY project, as_of, comparison, id DESC
) newest USING (run_id);

-- The training rows of a model version, as statistics: later checks do not read them again.
CREATE TABLE espalier.drift_references (
    project text NOT NULL,
    model_version text NOT NULL,
    trained_as_of date NOT NULL,
    rows bigint NOT NULL,
    positives bigint NOT NULL,
    first_label_time date NOT NULL,
    last_label_time date NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project, model_version)
);

CREATE TABLE espalier.drift_reference_columns (
    project text NOT NULL,
    model_version text NOT NULL,
    column_name text NOT NULL,
    rows bigint NOT NULL,
    nulls bigint NOT NULL,
    -- The standard deviation of the values.
    spread double precision NOT NULL,
    -- Values at evenly spaced shares of the rows that have one, in order.
    quantiles double precision[] NOT NULL,
    PRIMARY KEY (project, model_version, column_name),
    FOREIGN KEY (project, model_version) REFERENCES espalier.drift_references ON DELETE CASCADE
);

CREATE TABLE espalier.data_quality (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL,
    project text NOT NULL,
    as_of date NOT NULL,
    column_name text NOT NULL,
    rows bigint NOT NULL,
    missing bigint NOT NULL,
    out_of_range bigint NOT NULL,
    failed boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (run_id, column_name)
);
CREATE INDEX data_quality_by_day ON espalier.data_quality (project, as_of, id);

-- What was served against the labels that came later.
CREATE TABLE espalier.live_performance (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL,
    project text NOT NULL,
    label_time date NOT NULL,
    model_version text NOT NULL,
    role text NOT NULL CHECK (role IN ('champion', 'shadow')),
    metric text NOT NULL,
    value double precision NOT NULL,
    low double precision NOT NULL,
    high double precision NOT NULL,
    rows bigint NOT NULL,
    positives bigint NOT NULL,
    -- Labels of that time for which this version and role served nothing in time.
    unserved bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (run_id, label_time, model_version, role, metric)
);
CREATE INDEX live_performance_by_time ON espalier.live_performance (project, label_time, id);

CREATE VIEW espalier.live_performance_latest AS
SELECT DISTINCT ON (project, label_time, model_version, role, metric) *
FROM espalier.live_performance
ORDER BY project, label_time, model_version, role, metric, id DESC;

-- Groups of about equal size by score: how far the mean score is from the share that came true.
CREATE TABLE espalier.live_calibration (
    run_id uuid NOT NULL,
    project text NOT NULL,
    label_time date NOT NULL,
    model_version text NOT NULL,
    role text NOT NULL CHECK (role IN ('champion', 'shadow')),
    bin int NOT NULL,
    rows bigint NOT NULL,
    mean_score double precision NOT NULL,
    positive_share double precision NOT NULL,
    PRIMARY KEY (run_id, label_time, model_version, role, bin)
);

-- Two models on the same rows; difference is shadow less champion, with a paired interval.
CREATE TABLE espalier.live_comparison (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL,
    project text NOT NULL,
    label_time date NOT NULL,
    champion text NOT NULL,
    shadow text NOT NULL,
    metric text NOT NULL,
    champion_value double precision NOT NULL,
    shadow_value double precision NOT NULL,
    difference double precision NOT NULL,
    low double precision NOT NULL,
    high double precision NOT NULL,
    rows bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (run_id, label_time, champion, shadow, metric)
);
CREATE INDEX live_comparison_by_time ON espalier.live_comparison (project, label_time, id);

-- Served features against the history as it was known when they were served. A row of each run
-- without a column name counts predictions instead of values.
CREATE TABLE espalier.online_offline (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id uuid NOT NULL,
    project text NOT NULL,
    as_of date NOT NULL,
    column_name text,
    rows bigint NOT NULL,
    mismatches bigint NOT NULL,
    -- Of the row without a column name: served though no such row was known, and served though a
    -- newer one was known.
    unknown bigint,
    stale bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (mismatches <= rows),
    UNIQUE NULLS NOT DISTINCT (run_id, column_name)
);
CREATE INDEX online_offline_by_day ON espalier.online_offline (project, as_of, id);

-- One row for each run of a flow that ended, however it ended.
CREATE TABLE espalier.flow_runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project text NOT NULL,
    flow text NOT NULL,
    state text NOT NULL CHECK (state IN ('completed', 'refused', 'failed', 'cancelled')),
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    detail text NOT NULL DEFAULT '',
    CHECK (ended_at >= started_at)
);
CREATE INDEX flow_runs_by_flow ON espalier.flow_runs (project, flow, state, id);

-- Batch scoring. A run is one day, model and output; each part is there once or not at all, and a
-- run's partition is attached to espalier.scores when all of it is there.
CREATE TABLE espalier.score_runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project text NOT NULL,
    as_of date NOT NULL,
    model_version text NOT NULL,
    model_digest text NOT NULL,
    -- The digest of what was known: the project's snapshots up to that day.
    inputs text NOT NULL,
    -- A folder's URL, or 'postgresql'.
    output text NOT NULL,
    -- Into how many parts it was to be cut; 0 where an earlier cut is kept whatever is asked.
    asked int NOT NULL,
    -- The first key of each part but the first, in order.
    bounds text[] NOT NULL,
    rows bigint,
    started_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz,
    UNIQUE (project, as_of, model_version, model_digest, inputs, output, asked)
);

-- Of runs into PostgreSQL.
CREATE TABLE espalier.score_parts (
    run_id bigint NOT NULL REFERENCES espalier.score_runs,
    part int NOT NULL,
    rows bigint NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, part)
);

CREATE TABLE espalier.scores (
    run_id bigint NOT NULL,
    entity_id text NOT NULL,
    score double precision NOT NULL,
    prediction double precision NOT NULL,
    feature_time timestamptz NOT NULL,
    PRIMARY KEY (run_id, entity_id)
) PARTITION BY LIST (run_id);

CREATE VIEW espalier.scores_latest AS
SELECT newest.project, newest.as_of, newest.model_version, scores.*
FROM espalier.scores
JOIN (
    SELECT DISTINCT ON (project, as_of, model_version) id, project, as_of, model_version
    FROM espalier.score_runs
    WHERE completed_at IS NOT NULL AND output = 'postgresql'
    ORDER BY project, as_of, model_version, id DESC
) newest ON newest.id = scores.run_id;
