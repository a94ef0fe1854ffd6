"""What a changed declaration may change in a database that holds rows, and what it may not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from espalier.contract import Column, ColumnType, Table, contract_digest
from espalier.errors import ConfigurationError
from espalier.ingest import snapshots
from espalier.ingest.conftest import (
    BATCH,
    HOTEL,
    LATER,
    NIGHTS,
    ROOMS,
    STAYS,
    Run,
    hotel,
    write_batch,
)
from espalier.postgres.connect import Connection

STARS = Column(name="stars", type=ColumnType.INTEGER, description="how good", nullable=True)


def rows(connection: Connection, query: str) -> Any:
    return connection.execute(query.encode()).fetchall()


def columns_of(connection: Connection) -> Any:
    return rows(
        connection,
        "SELECT attname, atttypid, attnotnull FROM pg_attribute "
        "WHERE attrelid = 'hotel.rooms'::regclass ORDER BY attnum",
    )


def with_column(table: Table, name: str, **changes: Any) -> Table:
    columns = tuple(replace(c, **changes) if c.name == name else c for c in table.columns)
    return replace(table, columns=columns)


def test_each_contract_is_kept_once(run: Run, connection: Connection, tmp_path: Path) -> None:
    run(write_batch(tmp_path))
    run(write_batch(tmp_path, rooms="room,kind,note\n1,double,\n"), as_of=LATER)
    assert rows(connection, "SELECT version, digest, created_by FROM espalier.contracts") == [
        (1, contract_digest(HOTEL.tables), "tester")
    ]
    newest = snapshots.newest(connection, "hotel")
    assert newest is not None
    assert newest.validation["contract"] == contract_digest(HOTEL.tables)


def test_compatible_changes_are_applied_with_the_next_batch_and_kept(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    run(write_batch(tmp_path))
    rooms = with_column(ROOMS, "kind", allowed=("single", "double", "suite"), nullable=True)
    rooms = with_column(rooms, "room", description="the number on its door")
    rooms = replace(rooms, columns=(*rooms.columns, STARS), max_fault_share=0.1)
    guests = Table(
        name="guests",
        key=("guest",),
        columns=(Column(name="guest", type=ColumnType.TEXT, description="a name"),),
    )
    wider = hotel(rooms, with_column(NIGHTS, "price", maximum=2000), guests)
    folder = write_batch(
        tmp_path,
        rooms="room,kind,note,stars\n1,suite,,5\n2,,,\n",
        nights="room,night,price,booked\n1,2024-02-01,1500,\n",
    )
    (folder / "guests.csv").write_text("guest\nAda\n")
    done = run(folder, project=wider, as_of=LATER)
    assert done.rows == {"rooms": 2, "nights": 1, "stays": 0, "guests": 1}
    assert rows(connection, "SELECT room, kind, stars FROM hotel.rooms_latest ORDER BY room") == [
        (1, "suite", 5),
        (2, None, None),
    ]
    assert rows(connection, "SELECT stars FROM hotel.rooms WHERE snapshot_id = 1") == [
        (None,),
        (None,),
    ]
    ((changes, digest),) = rows(
        connection, "SELECT changes, digest FROM espalier.contracts WHERE version = 2"
    )
    assert digest == contract_digest(wider.tables)
    assert changes == [
        "column rooms.stars is new",
        "table rooms: max_fault_share from None to 0.1",
        "column rooms.room: description from its number to the number on its door",
        "column rooms.kind: allowed from ['single', 'double'] to ['single', 'double', 'suite']",
        "column rooms.kind: nullable from None to True",
        "column nights.price: maximum from 1000 to 2000",
        "table guests is new",
    ]
    assert rows(
        connection,
        "SELECT col_description('hotel.rooms'::regclass, 1)",
    ) == [("the number on its door",)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            with_column(ROOMS, "note", type=ColumnType.INTEGER),
            "column hotel.rooms.note is text, declared bigint; keep it as it was, or declare the n",
        ),
        (
            replace(ROOMS, columns=ROOMS.columns[:2]),
            r"column hotel.rooms.note \(text\) is no longer declared; keep it",
        ),
        (
            replace(ROOMS, key=("room", "kind")),
            "the key of hotel.rooms is room, declared kind, room; keep it",
        ),
        (
            replace(ROOMS, columns=(*ROOMS.columns, replace(STARS, nullable=False))),
            "column hotel.rooms.stars is new and not null, and 2 stored rows lack it; declare it n",
        ),
        (
            with_column(ROOMS, "note", nullable=False),
            "column hotel.rooms.note is nullable, declared not null, and it is null in 1 stored ",
        ),
        (
            with_column(ROOMS, "kind", allowed=("single",)),
            r"hotel.rooms.kind changes allowed from \['single', 'double'\] to \['single'\], which 1",
        ),
        (
            with_column(ROOMS, "room", minimum=2),
            "hotel.rooms.room changes minimum from 1 to 2, which 1 stored rows break; declare what",
        ),
        (
            with_column(NIGHTS, "price", maximum=90),
            "hotel.nights.price changes maximum from 1000 to 90, which 1 stored rows break",
        ),
        (
            with_column(NIGHTS, "room", unique=True),
            "hotel.nights.room changes unique to True, which 2 stored rows break",
        ),
    ],
)
def test_what_stored_rows_break_is_refused_before_a_file_is_staged(
    run: Run, connection: Connection, tmp_path: Path, table: Table, message: str
) -> None:
    run(write_batch(tmp_path))
    before = columns_of(connection)
    with pytest.raises(ConfigurationError, match=message) as caught:
        run(tmp_path, project=hotel(table), as_of=LATER)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert columns_of(connection) == before
    assert len(snapshots.list_snapshots(connection, "hotel")) == 1
    assert rows(connection, "SELECT count(*) FROM espalier.contracts") == [(1,)]


def test_another_event_time_would_change_what_was_known_and_is_refused(
    run: Run, tmp_path: Path
) -> None:
    nights = "room,night,price,booked\n1,2024-01-30,1,2024-01-02T03:04:05Z\n"
    run(write_batch(tmp_path, nights=nights))
    changed = replace(with_column(NIGHTS, "booked", nullable=False), event_time="booked")
    with pytest.raises(
        ConfigurationError, match=r"the event_time of hotel.nights is night, declared booked; keep"
    ):
        run(tmp_path, project=hotel(changed), as_of=LATER)


def test_a_tighter_rule_that_stored_rows_satisfy_is_applied(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    nights = "room,night,price,booked\n1,2024-01-30,1,2024-01-02T03:04:05Z\n"
    run(write_batch(tmp_path, nights=nights))
    tighter = with_column(with_column(NIGHTS, "price", maximum=500), "booked", nullable=False)
    later = nights.replace("01-30,1", "02-01,2")
    run(write_batch(tmp_path, nights=later), project=hotel(tighter), as_of=LATER)
    assert rows(
        connection,
        "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'hotel.nights'::regclass "
        "AND attname = 'booked'",
    ) == [(True,)]


def test_a_new_reference_is_asked_of_the_stored_rows(run: Run, tmp_path: Path) -> None:
    run(write_batch(tmp_path, stays=BATCH["stays"] + "7,2024-01-20,t\n"))
    stays = with_column(STAYS, "room", references="rooms.room")
    with pytest.raises(
        ConfigurationError,
        match=r"stays.room changes references to rooms.room, which 1 stored rows",
    ):
        run(tmp_path, project=hotel(stays), as_of=LATER)


def test_a_table_that_is_no_longer_declared_is_told(run: Run, tmp_path: Path) -> None:
    guests = Table(
        name="guests",
        key=("guest",),
        columns=(Column(name="guest", type=ColumnType.TEXT, description="a name"),),
    )
    folder = write_batch(tmp_path)
    (folder / "guests.csv").write_text("guest\nAda\n")
    run(folder, project=hotel(guests))
    with pytest.raises(ConfigurationError, match=r"table hotel.guests is no longer declared; decl"):
        run(folder, as_of=LATER)


def test_a_database_from_before_contracts_were_kept_takes_the_declared_one(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    run(write_batch(tmp_path))
    connection.execute("SET session_replication_role = replica")
    connection.execute("TRUNCATE espalier.contracts")
    with pytest.raises(
        ConfigurationError, match=r"rooms.kind changes allowed to .'single'., which"
    ):
        run(tmp_path, project=hotel(with_column(ROOMS, "kind", allowed=("single",))), as_of=LATER)
    run(write_batch(tmp_path, rooms="room,kind,note\n1,double,\n"), as_of=LATER)
    assert rows(connection, "SELECT version, changes FROM espalier.contracts") == [(1, [])]
