from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.errors import BadData
from espalier.ingest import gunzip

PATH = Path("x.csv.gz")
TEXT = b"".join(b"%d,%d\n" % (n, n * n) for n in range(1000))


def parts(packed: bytes, size: int) -> Iterator[bytes]:
    return (packed[at : at + size] for at in range(0, len(packed), size))


@given(
    members=st.lists(st.binary(max_size=300), min_size=1, max_size=3),
    read=st.integers(1, 50),
    size=st.integers(1, 50),
)
def test_members_are_unpacked_in_bounded_chunks(members: list[bytes], read: int, size: int) -> None:
    packed = b"".join(gzip.compress(member) for member in members)
    found = list(gunzip.chunks(PATH, parts(packed, read), size))
    assert b"".join(found) == b"".join(members)
    assert all(0 < len(chunk) <= size for chunk in found)


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
@pytest.mark.parametrize(
    ("packed", "says"),
    [
        (gzip.compress(TEXT)[:-1], "is cut off"),
        (gzip.compress(TEXT)[:-500], "is cut off"),
        (gzip.compress(TEXT)[:5], "is cut off"),
        (b"", "is cut off"),
        (gzip.compress(TEXT) + gzip.compress(TEXT)[:20], "is cut off"),
        (TEXT, "is not gzip"),
        (gzip.compress(TEXT) + b"garbage", "follows its end"),
        (gzip.compress(TEXT)[:-8] + b"\0\0\0\0" + gzip.compress(TEXT)[-4:], "is damaged"),
    ],
)
def test_what_is_not_whole_gzip_is_refused(packed: bytes, says: str, size: int) -> None:
    with pytest.raises(BadData, match=says) as caught:
        list(gunzip.chunks(PATH, parts(packed, 100), size))
    assert str(caught.value).startswith("x.csv.gz: ")


def test_a_bomb_takes_no_memory() -> None:
    pack = zlib.compressobj(9, wbits=31)
    packed = b"".join(pack.compress(bytes(1 << 20)) for _ in range(300)) + pack.flush()
    tracemalloc.start()
    try:
        total = sum(len(chunk) for chunk in gunzip.chunks(PATH, [packed], 1 << 16))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 300 << 20
    assert peak < 2 << 20
