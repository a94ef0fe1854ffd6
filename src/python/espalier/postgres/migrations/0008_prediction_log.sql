-- The prediction log by month, so that old months go at once and without dead rows; and what was
-- scored in the shadow, by whose request, in which trace.
ALTER INDEX espalier.predictions_by_time RENAME TO predictions_first_by_time;
ALTER TABLE espalier.predictions RENAME TO predictions_first;
ALTER TABLE espalier.predictions_first
    ADD COLUMN shadow boolean NOT NULL DEFAULT false,
    ADD COLUMN request_id text,
    ADD COLUMN trace_id text,
    ALTER COLUMN feature_time DROP NOT NULL;

CREATE TABLE espalier.predictions (LIKE espalier.predictions_first INCLUDING DEFAULTS)
    PARTITION BY RANGE (served_at);
CREATE INDEX predictions_by_time ON espalier.predictions USING brin (served_at);
-- Rows of a month that nobody made a partition for; moved when one is made.
CREATE TABLE espalier.predictions_other PARTITION OF espalier.predictions DEFAULT;

COMMENT ON COLUMN espalier.predictions.shadow IS 'scored by a challenger beside the answer, never given';
COMMENT ON COLUMN espalier.predictions.feature_time IS 'null where a model was asked without a feature row';
COMMENT ON COLUMN espalier.predictions.request_id IS 'of the request that asked first, of several in a batch';

-- What was served before stays as one partition, up to the end of its newest month.
DO $$
DECLARE
    upper_bound timestamptz;
BEGIN
    SELECT (date_trunc('month', max(served_at) AT TIME ZONE 'UTC') + interval '1 month')
        AT TIME ZONE 'UTC' INTO upper_bound FROM espalier.predictions_first;
    IF upper_bound IS NULL THEN
        DROP TABLE espalier.predictions_first;
    ELSE
        EXECUTE format('ALTER TABLE espalier.predictions ATTACH PARTITION '
            'espalier.predictions_first FOR VALUES FROM (MINVALUE) TO (%L)', upper_bound);
    END IF;
END
$$;

CREATE FUNCTION espalier.make_predictions_month(at timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    first timestamptz := date_trunc('month', at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
    next timestamptz := (date_trunc('month', at AT TIME ZONE 'UTC') + interval '1 month')
        AT TIME ZONE 'UTC';
    name text := 'predictions_' || to_char(at AT TIME ZONE 'UTC', 'YYYY_MM');
BEGIN
    IF to_regclass('espalier.' || name) IS NOT NULL THEN
        RETURN false;
    END IF;
    -- Two workers that begin a month at once take turns.
    PERFORM pg_advisory_xact_lock(hashtextextended('espalier.predictions', 0));
    EXECUTE format('CREATE TABLE espalier.%I (LIKE espalier.predictions INCLUDING DEFAULTS)', name);
    EXECUTE format('WITH moved AS (DELETE FROM espalier.predictions_other '
        'WHERE served_at >= %L AND served_at < %L RETURNING *) '
        'INSERT INTO espalier.%I SELECT * FROM moved', first, next, name);
    EXECUTE format('ALTER TABLE espalier.predictions ATTACH PARTITION espalier.%I '
        'FOR VALUES FROM (%L) TO (%L)', name, first, next);
    RETURN true;
EXCEPTION WHEN duplicate_table OR invalid_object_definition THEN
    -- Made by another while we waited for it, or the month lies in the partition of what was served
    -- before this migration.
    RETURN false;
END
$$;
COMMENT ON FUNCTION espalier.make_predictions_month IS
    'Makes the partition of the month of `at` (UTC); false when its rows have a place already';

CREATE FUNCTION espalier.drop_predictions_before(oldest timestamptz) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    found record;
    dropped int := 0;
BEGIN
    FOR found IN
        SELECT child.relname AS name,
            substring(pg_get_expr(child.relpartbound, child.oid) FROM 'TO \(''([^'']+)''\)')::timestamptz
                AS upper_bound
        FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
        WHERE inhparent = 'espalier.predictions'::regclass
    LOOP
        IF found.upper_bound <= oldest THEN
            EXECUTE format('DROP TABLE espalier.%I', found.name);
            dropped := dropped + 1;
        END IF;
    END LOOP;
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION espalier.drop_predictions_before IS
    'Drops the months that ended by `oldest`; gives their number';
