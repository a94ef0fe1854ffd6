from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest

from espalier.errors import BadData, UsageError
from espalier.ingest import source
from espalier.ingest.conftest import HOTEL, write_batch


def test_the_files_of_a_folder_are_found_with_their_headers_in_file_order(tmp_path: Path) -> None:
    folder = write_batch(tmp_path, rooms="note,room,kind\n,1,single\n")
    found = source.find(folder, HOTEL.tables)
    assert [file.path.name for file in found] == ["rooms.csv", "nights.csv", "stays.csv"]
    assert found[0].header == ("note", "room", "kind")


def test_a_missing_folder_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder") as caught:
        source.find(tmp_path / "nowhere", HOTEL.tables)
    assert caught.value.exit_code == 2


def test_all_missing_files_are_named(tmp_path: Path) -> None:
    write_batch(tmp_path)
    (tmp_path / "rooms.csv").unlink()
    (tmp_path / "stays.csv").unlink()
    with pytest.raises(BadData, match=r"no rooms\.csv, stays\.csv"):
        source.find(tmp_path, HOTEL.tables)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"room,kind\n", "missing 'note'"),
        (b"room,kind,note,price\n", "unknown 'price'"),
        (b"room,kind,note,kind\n", "duplicated 'kind'"),
        (b"Room,kind,note\n", "missing 'room'; unknown 'Room'"),
        (b"room;kind;note\n1;single;\n", "unknown 'room;kind;note'"),
        (b"1,single,\n", "missing 'room', 'kind', 'note'; unknown '1', 'single', ''"),
        (b'"room","kind\n","note"\n', r"unknown 'kind\\n'"),
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"\n\n", "is empty"),
        ("room,kind,note\n".encode("utf-16"), "line 1: is not UTF-8"),
        (b'"room,kind,note\n', "line 1: the header is not CSV"),
        (b"room,kind,note\r1,single,\r", "its lines end in CR alone"),
        (b"\0room,kind,note\n", "unknown"),
    ],
)
def test_another_header_is_refused(tmp_path: Path, header: bytes, message: str) -> None:
    write_batch(tmp_path, rooms=header)
    with pytest.raises(BadData, match=message) as caught:
        source.find(tmp_path, HOTEL.tables)
    assert "rooms.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", [b"\xef\xbb\xbfroom,kind\r\n", b'"room","kind"', b"room,kind"])
def test_a_header_may_have_a_byte_order_mark_quotes_and_either_line_end(header: bytes) -> None:
    assert source.read_header(Path("x.csv"), header) == ("room", "kind")


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to(path.name)])
def test_what_is_no_file_is_named(tmp_path: Path, make: Callable[[Path], object]) -> None:
    write_batch(tmp_path)
    (tmp_path / "stays.csv").unlink()
    make(tmp_path / "stays.csv")
    with pytest.raises(BadData, match=r"stays\.csv: is not a file"):
        source.find(tmp_path, HOTEL.tables)


def test_a_table_has_one_file(tmp_path: Path) -> None:
    write_batch(tmp_path)
    (tmp_path / "stays.csv.gz").touch()
    (tmp_path / "stays.parquet").touch()
    with pytest.raises(BadData, match=r"3 files: stays\.csv, stays\.csv\.gz, stays\.parquet"):
        source.find(tmp_path, HOTEL.tables)


def test_the_format_is_told_by_the_name(tmp_path: Path) -> None:
    write_batch(tmp_path)
    rooms, nights = tmp_path / "rooms.csv", tmp_path / "nights.csv"
    (tmp_path / "rooms.csv.gz").write_bytes(gzip.compress(rooms.read_bytes()))
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(nights), tmp_path / "nights.parquet")
    rooms.unlink()
    nights.unlink()
    found = source.find(tmp_path, HOTEL.tables)
    assert [file.format.value for file in found] == [".csv.gz", ".parquet", ".csv"]
    assert [file.header for file in found[:2]] == [
        ("room", "kind", "note"),
        ("room", "night", "price", "booked"),
    ]
