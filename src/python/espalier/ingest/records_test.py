from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from espalier.errors import BadData, UsageError
from espalier.ingest import records
from espalier.ingest.conftest import ROOMS
from espalier.ingest.records import Reader, cut
from espalier.ingest.source import FileFacts, SourceFile

PATH = Path("x.csv")


def chunks(text: bytes, size: int) -> Iterator[bytes]:
    return (text[at : at + size] for at in range(0, len(text), size))


def test_a_file_is_passed_on_without_its_mark_and_hashed_with_it(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + "a,b\né,€😀\n".encode()
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    reader = Reader(SourceFile(ROOMS, path, ("a", "b")))
    for _ in range(2):
        assert b"".join(reader) == content[3:]
        assert reader.facts == FileFacts(hashlib.sha256(content).hexdigest(), len(content))


@pytest.mark.parametrize("size", [1, 3, 4, 7, 1000])
@pytest.mark.parametrize("rest", [b"\xe9t\xe9\nmore\n", b"\xe2\x82"])
def test_the_line_of_what_is_not_utf8_is_told(size: int, rest: bytes) -> None:
    with pytest.raises(BadData, match=r"x\.csv line 3: is not UTF-8"):
        list(cut(PATH, chunks("a\né\n".encode() + rest, size)))


@given(text=st.text('a,"\n\r', max_size=40), size=st.integers(1, 20))
@example(text='a,"\n\n"\n"a\n', size=3)
def test_pieces_are_the_text_and_end_where_no_quote_is_open(text: str, size: int) -> None:
    pieces = list(cut(PATH, chunks(text.encode(), size)))
    assert b"".join(pieces) == text.encode()
    for end in itertools.accumulate(pieces[:-1]):
        assert end.endswith(b"\n")
        assert end.count(b'"') % 2 == 0


def test_a_record_without_end_is_refused_at_the_line_where_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 100)
    endless = itertools.chain([b'a\nb\nc,"x\n'], itertools.repeat(b"y\nz\n"))
    with pytest.raises(BadData, match=r"x\.csv line 3: a record of more than 100 bytes; .*quote"):
        list(cut(PATH, endless))


@pytest.mark.parametrize(("text", "line"), [(b"\\.\na\n", 1), (b"a\n\\.\nb\n", 2)])
def test_the_end_mark_of_copy_is_refused(text: bytes, line: int) -> None:
    with pytest.raises(BadData, match=rf"x\.csv line {line}: begins with \\\."):
        list(cut(PATH, [text]))


def test_the_same_characters_elsewhere_are_none() -> None:
    assert list(cut(PATH, [b'"\\."\na\\.\n'])) == [b'"\\."\na\\.\n']


def test_a_file_that_cannot_be_read_is_wrong_use() -> None:
    # Open to be opened, by anyone, and not to be read at its start.
    with pytest.raises(UsageError, match="cannot be read"):
        list(Reader(SourceFile(ROOMS, Path("/proc/self/mem"), ("a",))))
