-- Snapshots: one row for each batch that was stored, or for each revision of one. Their rows live
-- in a schema for each project, which ingest makes from the project's declaration.

CREATE TABLE espalier.snapshots (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project text NOT NULL,
    as_of date NOT NULL,
    revision int NOT NULL CHECK (revision >= 1),
    digest text NOT NULL,
    files jsonb NOT NULL,
    row_counts jsonb NOT NULL,
    validation jsonb NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (project, as_of, revision)
);

COMMENT ON COLUMN espalier.snapshots.digest IS 'sha256 of the batch''s content, whatever its order';
COMMENT ON COLUMN espalier.snapshots.files IS 'by table: the sha256 and size in bytes of its file';
COMMENT ON COLUMN espalier.snapshots.row_counts IS 'by table: the rows in its file';

CREATE FUNCTION espalier.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.% only grows: % is refused', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation',
              HINT = 'ingest a revision to correct what was stored';
END
$$;

CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON espalier.snapshots
    FOR EACH STATEMENT EXECUTE FUNCTION espalier.refuse_change();

-- Holds the files of ingests that run now; nothing in it outlives them.
CREATE SCHEMA staging;
