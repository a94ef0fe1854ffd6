"""That every stored row belongs to a snapshot: checked by PostgreSQL, a statement at a time.

A foreign key would ask for each row alone, which takes longer than to store it. Snapshots are
never deleted (a trigger refuses that), so it is enough to look when rows are added.
"""

from __future__ import annotations

from psycopg import sql

from espalier.postgres.connect import Connection

TRIGGER = "of_a_snapshot"


def require(connection: Connection, schema: str, table: str) -> None:
    """Let the table take only rows of a stored snapshot; does nothing when it already does.

    A foreign key that a former release put in its place is dropped.
    """
    target = sql.Identifier(schema, table)
    name = target.as_string()
    found = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = %s::regclass AND tgname = %s)",
        [name, TRIGGER],
    ).fetchone()
    if found == (True,):
        return
    function = sql.Identifier(schema, "require_snapshot")
    connection.execute(
        sql.SQL(
            """
            CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE
                missing bigint;
            BEGIN
                SELECT a.snapshot_id INTO missing
                FROM (SELECT DISTINCT snapshot_id FROM added) AS a
                WHERE NOT EXISTS (SELECT FROM espalier.snapshots AS s WHERE s.id = a.snapshot_id)
                LIMIT 1;
                IF FOUND THEN
                    RAISE EXCEPTION '%.%: there is no snapshot %',
                        TG_TABLE_SCHEMA, TG_TABLE_NAME, missing
                        USING ERRCODE = 'foreign_key_violation';
                END IF;
                RETURN NULL;
            END
            $$
            """
        ).format(function)
    )
    connection.execute(
        sql.SQL(
            "CREATE TRIGGER {} AFTER INSERT ON {} REFERENCING NEW TABLE AS added "
            "FOR EACH STATEMENT EXECUTE FUNCTION {}()"
        ).format(sql.Identifier(TRIGGER), target, function)
    )
    keys = connection.execute(
        "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = %s::regclass "
        "AND confrelid = 'espalier.snapshots'::regclass",
        [name],
    ).fetchall()
    for (key,) in keys:
        connection.execute(
            sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(target, sql.Identifier(key))
        )
