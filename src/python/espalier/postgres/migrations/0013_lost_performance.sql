-- By how much live performance is worse than validation promised, at the end of its interval that is
-- best for the champion; 0 within the declared margin, null where one of both is not known and in rows
-- of older releases.
ALTER TABLE espalier.actions ADD COLUMN live_shortfall double precision;
