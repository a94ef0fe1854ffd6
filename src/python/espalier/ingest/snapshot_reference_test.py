from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from espalier.ingest import snapshot_reference, tables
from espalier.ingest.conftest import HOTEL, Run, write_batch
from espalier.postgres.connect import Connection

ADD = (
    "INSERT INTO hotel.rooms SELECT n, 'single', NULL, '2024-01-31', %s "
    "FROM generate_series(%s::bigint, %s::bigint) AS n"
)


def test_rows_without_a_snapshot_are_refused(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    run(write_batch(tmp_path / "batch"))
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="there is no snapshot 2"):
        connection.execute(ADD, [2, 11, 20])
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.cursor().executemany(ADD, [(1, 11, 20), (7, 21, 30)])
    assert connection.execute(ADD, [1, 21, 30]).rowcount == 10


def test_it_is_asked_of_empty_tables_too(connection: Connection) -> None:
    tables.ensure(connection, HOTEL)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute(ADD, [1, 1, 1])


def test_a_former_foreign_key_gives_way(connection: Connection) -> None:
    tables.ensure(connection, HOTEL)
    connection.execute("DROP TRIGGER of_a_snapshot ON hotel.rooms")
    connection.execute(
        "ALTER TABLE hotel.rooms ADD FOREIGN KEY (snapshot_id) REFERENCES espalier.snapshots"
    )
    for _ in range(2):
        snapshot_reference.require(connection, "hotel", "rooms")
        keys = (
            "SELECT count(*) FROM pg_constraint "
            "WHERE contype = 'f' AND conrelid = 'hotel.rooms'::regclass"
        )
        assert connection.execute(keys).fetchall() == [(0,)]
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute(ADD, [1, 1, 1])
