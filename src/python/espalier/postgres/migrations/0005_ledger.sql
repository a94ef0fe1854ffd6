-- Who made which model version champion, when, why, and on what evidence. Rows are only added.
CREATE TABLE espalier.ledger (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project text NOT NULL,
    -- The promotion before this one; null for a project's first.
    previous_id bigint REFERENCES espalier.ledger,
    from_version text,
    to_version text NOT NULL,
    who text NOT NULL CHECK (who <> ''),
    why text NOT NULL CHECK (why <> ''),
    evidence jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((previous_id IS NULL) = (from_version IS NULL)),
    -- One history without branches: of two promotions that replace the same one, one fails.
    UNIQUE NULLS NOT DISTINCT (project, previous_id)
);

CREATE INDEX ledger_by_project ON espalier.ledger (project, id);

CREATE FUNCTION espalier.refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'espalier.ledger is append-only: % refused', TG_OP
        USING HINT = 'record another promotion instead';
END
$$;

CREATE TRIGGER ledger_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON espalier.ledger
    FOR EACH STATEMENT EXECUTE FUNCTION espalier.refuse_ledger_change();
