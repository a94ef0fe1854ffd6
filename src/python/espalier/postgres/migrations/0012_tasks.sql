-- Classes and numbers beside yes and no: what a model of several classes gave each of them, and
-- labels as the task has them.

ALTER TABLE espalier.predictions ADD COLUMN probabilities double precision[];
COMMENT ON COLUMN espalier.predictions.probabilities IS
    'of each class, in their declared order; null but for a project of several classes';
COMMENT ON COLUMN espalier.predictions.score IS
    'the probability of the positive class, or of the most probable one; of a number: itself';
COMMENT ON COLUMN espalier.predictions.prediction IS
    '1 or 0; of several classes the most probable one''s place, from 0 on; of a number: itself';

ALTER TABLE espalier.scores ADD COLUMN probabilities double precision[];
-- Partitions of runs that were cut short are attached when the run is taken up.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT relname FROM pg_class
        WHERE relnamespace = 'espalier'::regnamespace AND relkind = 'r'
            AND relname ~ '^scores_[0-9]+$'
            AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = pg_class.oid)
    LOOP
        EXECUTE format(
            'ALTER TABLE espalier.%I ADD COLUMN probabilities double precision[]', found.relname);
    END LOOP;
END
$$;

CREATE OR REPLACE VIEW espalier.scores_latest AS
SELECT newest.project, newest.as_of, newest.model_version, scores.*
FROM espalier.scores
JOIN (
    SELECT DISTINCT ON (project, as_of, model_version) id, project, as_of, model_version
    FROM espalier.score_runs
    WHERE completed_at IS NOT NULL AND output = 'postgresql'
    ORDER BY project, as_of, model_version, id DESC
) newest ON newest.id = scores.run_id;

-- The reference's labels. Where they are true or false, `positives` alone tells them.
ALTER TABLE espalier.drift_references
    ALTER COLUMN positives DROP NOT NULL,
    -- How many there are of each class, by its name.
    ADD COLUMN label_counts jsonb,
    -- Of numbers, as a column of drift_reference_columns has them.
    ADD COLUMN label_spread double precision,
    ADD COLUMN label_quantiles double precision[];

-- Null where labels are not true or false.
ALTER TABLE espalier.live_performance ALTER COLUMN positives DROP NOT NULL;

COMMENT ON COLUMN espalier.live_calibration.mean_score IS
    'of several classes: the mean probability of the most probable one; of numbers: the mean one';
COMMENT ON COLUMN espalier.live_calibration.positive_share IS
    'of several classes: how often that one came true; of numbers: the mean label';

-- Of a metric whose low values are good, the lower end of its interval is the one that counts.
ALTER TABLE espalier.actions ADD COLUMN live_low double precision;
