-- Faulty rows, kept until they are repaired; and each version of a project's data contract.

-- A batch with faulty rows: stored without them, or refused as a whole.
CREATE TABLE espalier.quarantine_batches (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project text NOT NULL,
    as_of date NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('stored', 'refused')),
    snapshot_id bigint REFERENCES espalier.snapshots,
    files jsonb NOT NULL,
    row_counts jsonb NOT NULL,
    faulty_counts jsonb NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((snapshot_id IS NULL) = (outcome = 'refused'))
);

COMMENT ON COLUMN espalier.quarantine_batches.files IS 'by table: name, sha256 and bytes';
COMMENT ON COLUMN espalier.quarantine_batches.faulty_counts IS
    'by table: faulty rows; of a refused batch only the first are kept';

CREATE INDEX quarantine_batches_by_day ON espalier.quarantine_batches (project, as_of);

CREATE TABLE espalier.quarantine_rows (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id bigint NOT NULL REFERENCES espalier.quarantine_batches ON DELETE CASCADE,
    table_name text NOT NULL,
    -- Null for what is wrong with the table as a whole.
    line bigint,
    row jsonb,
    column_name text,
    rule text NOT NULL,
    reason text NOT NULL,
    replayed_at timestamptz,
    replayed_snapshot_id bigint REFERENCES espalier.snapshots,
    CHECK ((line IS NULL) = (row IS NULL)),
    CHECK ((replayed_at IS NULL) = (replayed_snapshot_id IS NULL))
);

COMMENT ON COLUMN espalier.quarantine_rows.line IS 'the record''s number in its file, the header being 1';
COMMENT ON COLUMN espalier.quarantine_rows.row IS 'the values as text, by column; null for an empty field';

CREATE INDEX quarantine_rows_by_batch ON espalier.quarantine_rows (batch_id, id);

-- Both, as one reads them. A batch is superseded once its day has a later snapshot that is more
-- than a replay of rows.
CREATE VIEW espalier.quarantine AS
SELECT
    r.id, b.project, b.as_of, r.table_name AS "table", b.files #>> ARRAY[r.table_name, 'name'] AS file,
    r.line, r.row, r.column_name AS "column", r.rule, r.reason, b.outcome, b.snapshot_id,
    b.created_at, r.replayed_at, r.replayed_snapshot_id, b.id AS batch_id,
    CASE
        WHEN r.replayed_at IS NOT NULL THEN 'replayed'
        WHEN EXISTS (
            SELECT FROM espalier.snapshots s
            WHERE s.project = b.project AND s.as_of = b.as_of
                AND s.id > coalesce(b.snapshot_id, 0) AND s.created_at >= b.created_at
                AND NOT s.validation ? 'replays'
        ) THEN 'superseded'
        ELSE 'open'
    END AS state
FROM espalier.quarantine_rows r JOIN espalier.quarantine_batches b ON b.id = r.batch_id;

CREATE TABLE espalier.contracts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project text NOT NULL,
    version int NOT NULL CHECK (version >= 1),
    digest text NOT NULL,
    contract jsonb NOT NULL,
    changes jsonb NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (project, version)
);

COMMENT ON COLUMN espalier.contracts.contract IS 'the declared tables, as espalier.contract writes them';
COMMENT ON COLUMN espalier.contracts.changes IS 'what it changed in the version before, in words';

CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON espalier.contracts
    FOR EACH STATEMENT EXECUTE FUNCTION espalier.refuse_change();
