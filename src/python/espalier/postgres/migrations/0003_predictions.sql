-- What was served, by model version, to be joined with labels that come later.
CREATE TABLE espalier.predictions (
    served_at timestamptz NOT NULL,
    project text NOT NULL,
    model_version text NOT NULL,
    entity_id text NOT NULL,
    score double precision NOT NULL,
    prediction double precision NOT NULL,
    feature_time timestamptz NOT NULL,
    features double precision[] NOT NULL
);

CREATE INDEX predictions_by_time ON espalier.predictions USING brin (served_at);
