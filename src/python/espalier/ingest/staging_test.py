from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from espalier.contract import Table
from espalier.errors import BadData
from espalier.ingest import source, staging
from espalier.ingest.conftest import HOTEL, NIGHTS, ROOMS, STAYS, write_batch
from espalier.ingest.digest import content_digest
from espalier.ingest.staging import Staging
from espalier.postgres.connect import Connection, connect


def tables_in_staging(connection: Connection) -> Any:
    return connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'staging'::regnamespace "
        "AND relkind = 'r'"
    ).fetchall()


def load(connection: Connection, place: Staging, folder: Path) -> None:
    for file in source.find(folder, HOTEL.tables):
        staging.load(connection, place, file)


def nights(column: str, value: str) -> str:
    fields = {"room": "1", "night": "2024-01-30", "price": "1", "booked": "", column: value}
    return f"{','.join(fields)}\n{','.join(fields.values())}\n"


def typed_value(connection: Connection, place: Staging, table: Table, column: str) -> Any:
    staging.make_typed(connection, place, table)
    query = f'SELECT "{column}" FROM staging."{place.typed(table)}"'
    ((value,),) = connection.execute(query.encode()).fetchall()
    return value


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("price", "abc", "'abc' is not a number"),
        ("price", "NaN", "'NaN' is not a number"),
        ("price", "-Infinity", "'-Infinity' is not a number"),
        ("price", "inf", "'inf' is not a number"),
        ("price", "1e999", "'1e999' is not a number"),
        ("price", "1_000", "'1_000' is not a number"),
        ("price", '"1,5"', "'1,5' is not a number"),
        ("price", " 1", "' 1' is not a number"),
        ("price", ".", "'.' is not a number"),
        ("price", "0x1F", "'0x1F' is not a number"),
        ("room", "1.0", "'1.0' is not a whole number"),
        ("room", "0b1", "'0b1' is not a whole number"),
        ("room", "9223372036854775808", "is not a whole number"),
        ("night", "2024-02-30", "'2024-02-30' is not a date"),
        ("night", "today", "'today' is not a date"),
        ("night", "infinity", "'infinity' is not a date"),
        ("night", "30.01.2024", "'30.01.2024' is not a date"),
        ("night", "2024-01-30 00:00", "is not a date"),
        ("booked", "now", "'now' is not a time"),
        ("booked", "2024-01-30T25:00", "is not a time"),
        ("booked", "2024-01-30T10:00 Mars/Base", "is not a time"),
    ],
)
def test_a_value_of_another_type_is_named(
    connection: Connection, tmp_path: Path, column: str, value: str, says: str
) -> None:
    with staging.staging(connection) as place:
        load(connection, place, write_batch(tmp_path, nights=nights(column, value)))
        faults = staging.type_faults(connection, place, NIGHTS)
    assert faults is not None
    assert faults.count == 1
    assert faults.first[0].startswith(f"row 2 column {column}: ")
    assert says in faults.first[0]


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("price", "1.", 1.0),
        ("price", "-.5e+1", -5.0),
        ("price", "+2", 2.0),
        ("price", "", None),
        ("price", '""', None),
        ("room", "-9223372036854775808", -(2**63)),
        ("room", "+07", 7),
    ],
)
def test_a_value_of_its_type_is_read(
    connection: Connection, tmp_path: Path, column: str, value: str, expected: Any
) -> None:
    with staging.staging(connection) as place:
        load(connection, place, write_batch(tmp_path, nights=nights(column, value)))
        assert staging.type_faults(connection, place, NIGHTS) is None
        assert typed_value(connection, place, NIGHTS, column) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("T", True), ("1", True), ("False", False), ("f", False), ("0", False)],
)
def test_booleans(connection: Connection, tmp_path: Path, value: str, expected: Any) -> None:
    folder = write_batch(tmp_path, stays=f"room,night,stayed\n1,2024-01-01,{value}\n")
    with staging.staging(connection) as place:
        load(connection, place, folder)
        assert staging.type_faults(connection, place, STAYS) is None
        assert typed_value(connection, place, STAYS, "stayed") is expected


@pytest.mark.parametrize("value", ["yes", "on", "2", "tru", "null"])
def test_other_words_are_no_booleans(connection: Connection, tmp_path: Path, value: str) -> None:
    folder = write_batch(tmp_path, stays=f"room,night,stayed\n1,2024-01-01,{value}\n")
    with staging.staging(connection) as place:
        load(connection, place, folder)
        faults = staging.type_faults(connection, place, STAYS)
    assert faults is not None
    assert faults.first == (f"row 2 column stayed: {value!r} is not true or false",)


def test_a_time_without_offset_is_utc(connection: Connection, tmp_path: Path) -> None:
    with staging.staging(connection) as place:
        load(connection, place, write_batch(tmp_path, nights=nights("booked", "2024-01-02T03:04")))
        found = typed_value(connection, place, NIGHTS, "booked")
    assert found.isoformat() == "2024-01-02T03:04:00+00:00"


def test_minus_zero_is_zero(connection: Connection, tmp_path: Path) -> None:
    with staging.staging(connection) as place:
        load(connection, place, write_batch(tmp_path, nights=nights("price", "-0.0")))
        assert str(typed_value(connection, place, NIGHTS, "price")) == "0.0"


def test_faults_are_counted_and_the_first_named_in_file_order(
    connection: Connection, tmp_path: Path
) -> None:
    rows = "".join(f"{n},x,a,b\n" for n in range(40))
    with staging.staging(connection) as place:
        load(connection, place, write_batch(tmp_path, nights=f"room,night,price,booked\n{rows}"))
        faults = staging.type_faults(connection, place, NIGHTS)
    assert faults is not None
    assert faults.count == 120
    assert [text.split()[1] for text in faults.first] == ["2", "2", "2", "3", "3"]


@pytest.mark.parametrize(
    ("rooms", "says"),
    [
        (b"room,kind,note\n1,single,\n2,double\n", "line 3: missing data for column"),
        (b"room,kind,note\n1,single,,\n", "line 2: extra data"),
        (b'room,kind,note\n1,"single,\n2,double,\n', "unterminated CSV quoted field"),
        (b"room,kind,note\n1,single,\n\n", "line 3: missing data"),
        (b"room,kind,note\n1,sin\0gle,\n", "line 2: invalid byte sequence"),
        (b"room,kind,note\n1,single,\r\n2,double,\n", "carriage return"),
    ],
)
def test_what_is_not_csv_is_refused_with_its_line(
    connection: Connection, tmp_path: Path, rooms: bytes, says: str
) -> None:
    folder = write_batch(tmp_path, rooms=rooms)
    with pytest.raises(BadData, match=says) as caught, staging.staging(connection) as place:
        load(connection, place, folder)
    assert "rooms.csv" in str(caught.value)
    assert tables_in_staging(connection) == []


def test_quotes_newlines_and_column_order_do_not_change_the_content(
    connection: Connection, tmp_path: Path
) -> None:
    folders = [
        write_batch(tmp_path / "plain", rooms='room,kind,note\n1,single,"a\nb"\n2,double,\n'),
        write_batch(
            tmp_path / "other",
            rooms=b'\xef\xbb\xbf"note",room,"kind"\r\n"",2,"double"\r\n"a\nb",01,single\r\n',
        ),
    ]
    digests = set()
    for folder in folders:
        with staging.staging(connection) as place:
            load(connection, place, folder)
            for table in HOTEL.tables:
                staging.make_typed(connection, place, table)
            assert staging.count_rows(connection, place, [ROOMS]) == {"rooms": 2}
            digests.add(content_digest(connection, place, HOTEL.tables))
    assert len(digests) == 1


_ROW = st.tuples(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(["single", "double"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8),
)


@given(rows=st.lists(_ROW, min_size=1, max_size=6, unique_by=lambda row: row[0]), data=st.data())
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_digest_depends_on_the_rows_and_not_on_their_order(
    connection: Connection, tmp_path: Path, rows: list[tuple[int, str, str]], data: st.DataObject
) -> None:
    def digest(some: list[tuple[int, str, str]]) -> str:
        quoted = [(room, kind, '"' + note.replace('"', '""') + '"') for room, kind, note in some]
        lines = "".join(f"{room},{kind},{note}\n" for room, kind, note in quoted)
        folder = write_batch(tmp_path, rooms=f"room,kind,note\n{lines}")
        with staging.staging(connection) as place:
            staging.load(connection, place, source.find(folder, [ROOMS])[0])
            staging.make_typed(connection, place, ROOMS)
            return content_digest(connection, place, [ROOMS])

    shuffled = list(rows)
    random.Random(data.draw(st.integers())).shuffle(shuffled)
    assert digest(rows) == digest(shuffled)
    assert digest(rows) != digest([(rows[0][0], rows[0][1], rows[0][2] + "x"), *rows[1:]])
    assert digest(rows) != digest([])


def test_tables_are_seen_by_others_and_dropped_at_the_end(
    connection: Connection, dsn: str, tmp_path: Path
) -> None:
    with staging.staging(connection) as place:
        load(connection, place, write_batch(tmp_path))
        with connect(dsn) as other:
            assert len(tables_in_staging(other)) == 3
    assert tables_in_staging(connection) == []


def test_what_a_dead_call_left_is_dropped_and_what_a_live_one_uses_is_not(
    connection: Connection, dsn: str, tmp_path: Path
) -> None:
    folder = write_batch(tmp_path)
    dead = connect(dsn, autocommit=True)
    with staging.staging(dead) as place:
        load(dead, place, folder)
        with connect(dsn, autocommit=True) as live, staging.staging(live) as in_use:
            load(live, in_use, folder)
            assert staging.drop_leftovers(connection) == 0
            pid = dead.info.backend_pid
            connection.execute("SELECT pg_terminate_backend(%s, 60000)", [pid])
            with pytest.raises(psycopg.OperationalError):
                dead.execute("SELECT 1")
            assert staging.drop_leftovers(connection) == 1
            assert {name for (name,) in tables_in_staging(connection)} == {
                in_use.typed(table) for table in HOTEL.tables
            }
