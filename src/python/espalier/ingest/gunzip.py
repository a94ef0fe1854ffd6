"""Gzip as a stream: whole or refused, and never more than a chunk in memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from espalier.errors import BadData

# zlib's sign for a gzip header and trailer around the data.
_GZIP = 16 + zlib.MAX_WBITS


def chunks(path: Path, packed: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The unpacked bytes in chunks of at most `size`, of one gzip member or several.

    Args:
        path: The file's name, for errors.
        packed: Its bytes; none is empty.
        size: The most bytes of a chunk, however well they were packed.

    Raises:
        BadData: it is not gzip, is damaged or cut off, or goes on after its end.
    """
    unpack = zlib.decompressobj(_GZIP)
    members = 0
    for data in packed:
        rest = data
        while rest:
            if unpack.eof:
                unpack, members = zlib.decompressobj(_GZIP), members + 1
            try:
                out = unpack.decompress(rest, size)
            except zlib.error as error:
                raise _damaged(path, members, error) from error
            if out:
                yield out
            rest = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
            # At a full chunk, zlib may hold more without having left any input.
            while not unpack.eof and not rest and len(out) == size:
                out = unpack.decompress(b"", size)
                if out:
                    yield out
    if not unpack.eof:
        raise BadData(f"{path}: the gzip file is cut off", fix="copy it again, whole")


def _damaged(path: Path, members: int, error: zlib.error) -> BadData:
    if members:
        return BadData(
            f"{path}: something that is not gzip follows its end", fix="write the file anew"
        )
    if "incorrect header check" in str(error):
        return BadData(f"{path}: is not gzip", fix="pack it by gzip, or name it .csv")
    return BadData(f"{path}: the gzip file is damaged ({error})", fix="copy it again, whole")
