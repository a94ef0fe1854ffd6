from __future__ import annotations

import gzip
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from espalier.errors import BadData
from espalier.ingest import source
from espalier.ingest.conftest import BATCH, HOTEL, NIGHTS, ROOMS, Run, write_batch
from espalier.ingest.parquet import csv_text
from espalier.ingest.source import Format, SourceFile
from espalier.postgres.connect import Connection

NOON = datetime(2024, 1, 2, 12, tzinfo=UTC)


def nights(path: Path, **changed: Any) -> SourceFile:
    columns = {
        "room": pa.array([1, 2], pa.int32()),
        "night": [date(2024, 1, 30), date(2024, 1, 31)],
        "price": [80.5, None],
        "booked": [NOON, None],
        **changed,
    }
    pyarrow.parquet.write_table(pa.table(columns), path)
    return SourceFile(NIGHTS, path, tuple(columns), Format.PARQUET)


def text(file: SourceFile) -> list[str]:
    return b"".join(csv_text(file)).decode().splitlines()


def test_rows_are_written_as_in_a_csv_file(tmp_path: Path) -> None:
    assert text(nights(tmp_path / "nights.parquet")) == [
        "room,night,price,booked",
        "1,2024-01-30,80.5,2024-01-02 12:00:00.000000Z",
        "2,2024-01-31,,",
    ]


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("price", pa.array([0.1, 2], pa.float32()), ["0.10000000149011612", "2"]),
        ("price", [1, 2], ["1", "2"]),
        ("price", pa.array([None, None]), ["", ""]),
        ("price", [Decimal("1.50"), Decimal("2.25")], ["1.50", "2.25"]),
        ("price", [float("nan"), float("inf")], ["nan", "inf"]),
        ("room", pa.array([1, 2**64 - 1], pa.uint64()), ["1", "18446744073709551615"]),
        ("night", pa.array([date(2024, 1, 30)] * 2, pa.date64()), ["2024-01-30"] * 2),
        ("booked", pa.array([NOON.replace(tzinfo=None)] * 2), ["2024-01-02 12:00:00.000000Z"] * 2),
        (
            "booked",
            pa.array([NOON] * 2, pa.timestamp("ns", tz="America/New_York")),
            ["2024-01-02 12:00:00.000000Z"] * 2,
        ),
    ],
)
def test_what_fits_a_declared_type_is_read(
    tmp_path: Path, column: str, values: Any, expected: list[str]
) -> None:
    file = nights(tmp_path / "nights.parquet", **{column: values})
    place = file.header.index(column)
    assert [line.split(",")[place] for line in text(file)[1:]] == expected


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("room", [1.0, 2.0], "column room is double, declared bigint"),
        ("room", ["1", "2"], "column room is string, declared bigint"),
        ("night", [NOON, NOON], "column night is timestamp"),
        ("price", ["1", "2"], "column price is string, declared double precision"),
        ("booked", ["2024", "2025"], "column booked is string, declared timestamptz"),
        ("price", [[1], [2]], "column price is list"),
        ("booked", pa.array([1, 2], pa.timestamp("ns")), "would lose data"),
    ],
)
def test_other_types_are_refused(tmp_path: Path, column: str, values: Any, says: str) -> None:
    with pytest.raises(BadData, match=says) as caught:
        text(nights(tmp_path / "nights.parquet", **{column: values}))
    assert "nights.parquet" in str(caught.value)


def test_text_may_be_encoded_by_a_dictionary_and_hold_anything(tmp_path: Path) -> None:
    values = pa.array(['a,"b"', "c\nd"]).dictionary_encode()
    columns = {"room": [1, 2], "kind": values, "note": pa.array(["", None], pa.large_string())}
    path = tmp_path / "rooms.parquet"
    pyarrow.parquet.write_table(pa.table(columns), path)
    found = b"".join(csv_text(SourceFile(ROOMS, path, tuple(columns), Format.PARQUET)))
    assert found == b'room,kind,note\n1,"a,""b""",""\n2,"c\nd",\n'


@pytest.mark.parametrize("cut", [-1, -20, 100, 4, 0])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    write_batch(tmp_path)
    whole = nights(tmp_path / "nights.parquet").path
    whole.write_bytes(whole.read_bytes()[:cut])
    (tmp_path / "nights.csv").unlink()
    with pytest.raises(BadData, match=r"nights\.parquet: is not a whole Parquet file"):
        source.find(tmp_path, HOTEL.tables)


def test_a_damaged_page_is_refused(tmp_path: Path) -> None:
    file = nights(tmp_path / "nights.parquet", price=[1.0, 2.0])
    data = bytearray(file.path.read_bytes())
    data[4:40] = b"\xff" * 36
    file.path.write_bytes(data)
    with pytest.raises(BadData, match=r"nights\.parquet: is not a whole Parquet file"):
        text(file)


def as_format(folder: Path, file_format: Format) -> Path:
    """The hotel's batch with every file in that format."""
    write_batch(folder)
    for table in HOTEL.tables:
        path = folder / f"{table.name}.csv"
        target = folder / f"{table.name}{file_format.value}"
        if file_format is Format.CSV_GZ:
            target.write_bytes(gzip.compress(path.read_bytes()))
        elif file_format is Format.PARQUET:
            pyarrow.parquet.write_table(TABLES[table.name], target, compression="zstd")
        if target != path:
            path.unlink()
    return folder


# `BATCH`, as a program that writes Parquet has it.
TABLES = {
    "rooms": pa.table(
        {"kind": ["single", "double"], "room": [1, 2], "note": [None, "by the lift"]}
    ),
    "nights": pa.table(
        {
            "room": [1, 1, 2],
            "night": [date(2024, 1, 30), date(2024, 1, 31), date(2024, 1, 31)],
            "price": [80.5, None, 100.0],
            "booked": [
                datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
                None,
                datetime(2024, 1, 2, 1, 4, tzinfo=UTC),
            ],
        }
    ),
    "stays": pa.table(
        {"room": [1, 2], "night": [date(2024, 1, 28), date(2024, 1, 29)], "stayed": [True, False]}
    ),
}


@pytest.mark.parametrize("order", [list(Format), list(reversed(Format))])
def test_the_same_rows_in_another_format_are_the_same_batch(
    run: Run, connection: Connection, tmp_path: Path, order: list[Format]
) -> None:
    done = [run(as_format(tmp_path / f.name, f)) for f in order]
    assert [one.status for one in done] == ["stored", "unchanged", "unchanged"]
    assert len({one.digest for one in done}) == 1
    assert connection.execute("SELECT count(*) FROM hotel.nights").fetchall() == [(3,)]


def test_faults_are_told_by_row_in_every_format(run: Run, tmp_path: Path) -> None:
    told = set()
    for file_format in Format:
        folder = as_format(tmp_path / file_format.name, file_format)
        bad = folder / f"stays{file_format.value}"
        rows = BATCH["stays"].replace("2024-01-29", "2024-03-29")
        match file_format:
            case Format.CSV:
                bad.write_text(rows)
            case Format.CSV_GZ:
                bad.write_bytes(gzip.compress(rows.encode()))
            case Format.PARQUET:
                late = [date(2024, 1, 28), date(2024, 3, 29)]
                table = TABLES["stays"].set_column(1, "night", [late])
                pyarrow.parquet.write_table(table, bad)
        with pytest.raises(BadData) as caught:
            run(folder)
        told.add(caught.value.message.replace(file_format.value, ".csv"))
    assert len(told) == 1
    assert "row 3 column night" in told.pop()
