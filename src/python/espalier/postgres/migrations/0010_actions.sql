-- What monitoring led to: one decision for each day and snapshot, and how the training that it asked
-- for ended. A row without `finished_at` is of a run that was cut short; the next run takes it up.
CREATE TABLE espalier.actions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project text NOT NULL,
    as_of date NOT NULL,
    snapshot_id bigint NOT NULL REFERENCES espalier.snapshots,
    -- The model that was looked at; null before the first.
    champion text,
    -- 'none': nothing asked for it; 'held': something did, and a limit said no; 'train'.
    decision text NOT NULL CHECK (decision IN ('none', 'held', 'train')),
    why text NOT NULL,
    drift boolean,
    live_value double precision,
    live_high double precision,
    expected double precision,
    decided_at timestamptz NOT NULL DEFAULT now(),
    -- Of a training: 'promoted', 'refused' by the gate, 'impossible' with the labels known.
    outcome text CHECK (outcome IN ('promoted', 'refused', 'impossible')),
    outcome_why text,
    model_version text,
    finished_at timestamptz,
    CHECK ((outcome IS NULL) = (decision <> 'train' OR finished_at IS NULL)),
    UNIQUE (project, as_of, snapshot_id)
);
CREATE INDEX actions_by_day ON espalier.actions (project, decision, as_of);
