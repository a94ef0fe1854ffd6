from __future__ import annotations

import hashlib
from pathlib import Path

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
    (tmp_path / "stays.csv").mkdir()
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
        (b'"room,kind,note\n', "its header is not CSV"),
        (b"\0room,kind,note\n", "unknown"),
    ],
)
def test_another_header_is_refused(tmp_path: Path, header: bytes, message: str) -> None:
    write_batch(tmp_path, rooms=header)
    with pytest.raises(BadData, match=message) as caught:
        source.find(tmp_path, HOTEL.tables)
    assert "rooms.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", [b"\xef\xbb\xbfroom,kind\r\n", b'"room","kind"', b"room,kind\r"])
def test_a_header_may_have_a_byte_order_mark_quotes_and_any_line_end(header: bytes) -> None:
    assert source.read_header(Path("x.csv"), header) == ("room", "kind")


def test_a_file_is_passed_on_without_its_mark_and_hashed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "CHUNK_BYTES", 4)
    content = b"\xef\xbb\xbf" + "a,b\né,€😀\n".encode()
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    passed: list[bytes] = []
    facts = source.stream(path, passed.append)
    assert b"".join(passed) == content[3:]
    assert facts == source.FileFacts(hashlib.sha256(content).hexdigest(), len(content))


@pytest.mark.parametrize("chunk", [1, 3, 4, 7, 1000])
@pytest.mark.parametrize("rest", [b"\xe9t\xe9\nmore\n", b"\xe2\x82"])
def test_the_line_of_what_is_not_utf8_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, rest: bytes
) -> None:
    monkeypatch.setattr(source, "CHUNK_BYTES", chunk)
    path = tmp_path / "x.csv"
    path.write_bytes("a\né\n".encode() + rest)
    with pytest.raises(BadData, match=r"x\.csv line 3: is not UTF-8"):
        source.stream(path, len)
