-- The online store's tables (one per feature view) are made by the store when Feast's definitions
-- are applied; the registry's tables are made by Feast. Here are only the schemas they live in.
CREATE SCHEMA online;
CREATE SCHEMA feast;
COMMENT ON SCHEMA online IS 'Online features: one table per feature view, one row per entity';
COMMENT ON SCHEMA feast IS 'Feast''s own: its registry and the tables it makes for a query''s time';
