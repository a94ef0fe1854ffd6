"""The fast check never accepts what the slow path refuses, and both stage the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from espalier.contract import Column, ColumnType, Table
from espalier.errors import BadData
from espalier.ingest import staging
from espalier.ingest.plain import PlainText
from espalier.ingest.source import SourceFile
from espalier.postgres.connect import Connection

TYPES = {
    "i": ColumnType.INTEGER,
    "d": ColumnType.DOUBLE,
    "b": ColumnType.BOOLEAN,
    "a": ColumnType.DATE,
    "t": ColumnType.TIMESTAMP,
    "s": ColumnType.TEXT,
}
EVERY = Table(
    name="every",
    key=("i",),
    columns=tuple(
        Column(name=name, type=kind, description=name, nullable=True)
        for name, kind in TYPES.items()
    ),
)
# Each of these is accepted by PostgreSQL's own reading of some type, or nearly.
TRICKY = [
    *("", '""', " 1", "1 ", "+1", "-1", "01", "1_0", "0x1F", "0b1", "9223372036854775808", "-0"),
    *("1.", ".5", ".", "-0.0", "-0e5", "-0.", "-.0", "+0", "-0.01", "1e5", "1e999", "1e-999"),
    *("NaN", "nan", "inf", "-Infinity", "0x1p3", "1,5", '"1"', '"-0"', '"1""0"', '"1,5"', '1"2"'),
    *("true", "TRUE", "t", "tr", "yes", "on", "of", "F", "0", "2", " true", '"true"'),
    *("1997-06-30", '"1997-06-30"', "1997-02-30", "1997-6-30", "19970630", "today", "infinity"),
    *("0000-01-01", "9999-12-31", "99999-01-01", "1997-06-30 BC", "J2451187", "June 30 1997"),
    *("1997-06-30T12:00:00Z", "1997-06-30 12:00", "1997-06-30T24:00", "1997-06-30T12:00:60"),
    *("1997-06-30 12:00:00.1234567", "1997-06-30T12:00+02", "1997-06-30 12:00 Europe/Rome"),
    *("1997-06-30T12:00:00.123456-0230", "epoch", "now", "٣", "é", "\\N", "null", "a\nb", '"a\nb"'),
    *("NULL", "'1'", "\t1", "1\t", "1\v", '"', '""""', "a\r", "\\.", "\x01", "+", "-", "e5"),
]
VALUE = st.one_of(
    st.sampled_from(TRICKY),
    st.text('0123456789+-.eETZ: "', max_size=8),
    st.text(max_size=5),
)


def file(path: Path, rows: list[list[str]]) -> SourceFile:
    text = "".join(f"{','.join(row)}\n" for row in [list(TYPES), *rows])
    path.write_bytes(text.encode("utf-8", errors="replace"))
    return SourceFile(EVERY, path, tuple(TYPES))


def staged(connection: Connection, source: SourceFile) -> Any:
    """What is in the typed table, or what is said of the file."""
    with staging.staging(connection) as place:
        try:
            staging.load(connection, place, source)
        except BadData as error:
            return str(error)
        faults = staging.type_faults(connection, place, EVERY)
        if faults is not None:
            return faults
        staging.make_typed(connection, place, EVERY)
        names = ", ".join(f"{name}::text" for name in TYPES)
        query = f'SELECT _line, {names} FROM staging."{place.typed(EVERY)}" ORDER BY _line'
        return connection.execute(query.encode()).fetchall()


def slowly(connection: Connection, source: SourceFile) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "_load_typed", lambda *_: None)
        return staged(connection, source)


def taken_fast(connection: Connection, source: SourceFile) -> bool:
    with staging.staging(connection) as place:
        return staging._load_typed(connection, place, source) is not None


@pytest.mark.parametrize("column", TYPES)
def test_each_tricky_value_is_staged_alike(
    connection: Connection, tmp_path: Path, column: str
) -> None:
    for value in TRICKY:
        row = [value if name == column else "" for name in TYPES]
        source = file(tmp_path / "every.csv", [["1", "1", "1", "", "", ""], row])
        assert staged(connection, source) == slowly(connection, source), value


@given(rows=st.lists(st.lists(VALUE, min_size=6, max_size=6), max_size=3))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_is_staged_alike(
    connection: Connection, tmp_path: Path, rows: list[list[str]]
) -> None:
    source = file(tmp_path / "every.csv", rows)
    assert staged(connection, source) == slowly(connection, source)


ORDINARY = [
    ["1", "1.5", "true", "1997-06-30", "1997-06-30T12:00:00Z", "text"],
    ["-7", "-2e-3", "F", "1997-07-31", "1997-06-30", ""],
    ['"3"', "", '""', '"1997-07-31"', "1997-06-30 12:00:00.5+02", '"a, ""b"""'],
    ["4", "-0.0", "", "", "", "é"],
]


def test_ordinary_files_go_the_fast_way(connection: Connection, tmp_path: Path) -> None:
    source = file(tmp_path / "every.csv", ORDINARY)
    assert taken_fast(connection, source)
    (*_, last) = staged(connection, source)
    assert last == (5, "4", "0", None, None, None, "é")
    text = source.path.read_bytes()
    source.path.write_bytes(text.replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    assert taken_fast(connection, source)


def test_line_ends_within_quotes_do_not_hide_a_fault() -> None:
    plain = PlainText(SourceFile(EVERY, Path("every.csv"), tuple(TYPES)))
    good = b'1,,,,,"a\nb"\n' * 20_000
    assert plain.holds(good)
    assert not plain.holds(good + b'today,,,,,"a\nb"\n' + good)
    assert not plain.minus_zero


def test_a_fault_is_found_in_every_part() -> None:
    plain = PlainText(SourceFile(EVERY, Path("every.csv"), tuple(TYPES)))
    row = b"1,2.5,t,1997-06-30,,x\n"
    for before in range(0, 12_000, 1_500):
        assert not plain.holds(row * before + b"1,NaN,t,1997-06-30,,x\n" + row * (12_000 - before))
    assert plain.holds(row * 12_000)
