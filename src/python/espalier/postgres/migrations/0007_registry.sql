-- A promotion or a step back, and word of both to whoever serves.
ALTER TABLE espalier.ledger
    ADD COLUMN kind text NOT NULL DEFAULT 'promote' CHECK (kind IN ('promote', 'rollback')),
    ADD CHECK (kind = 'promote' OR from_version IS NOT NULL);

COMMENT ON COLUMN espalier.ledger.kind IS
    'promote puts a version on top of the champions; rollback takes those above to_version off';

-- Sent when the transaction commits, so nobody hears of a promotion that did not happen.
CREATE FUNCTION espalier.tell_promotion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify(
        'espalier_promotion',
        json_build_object('project', NEW.project, 'version', NEW.to_version)::text
    );
    RETURN NULL;
END
$$;

CREATE TRIGGER ledger_tells AFTER INSERT ON espalier.ledger
    FOR EACH ROW EXECUTE FUNCTION espalier.tell_promotion();
