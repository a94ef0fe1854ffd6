"""HTTP/2 as bytes, for tests that speak gRPC in ways no library lets them, and what it costs."""

from __future__ import annotations

import os
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_DATA, _HEADERS, _SETTINGS = 0x0, 0x1, 0x4
_END_STREAM, _END_HEADERS = 0x1, 0x4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    return (
        len(payload).to_bytes(3, "big")
        + bytes([kind & 0xFF, flags & 0xFF])
        + stream.to_bytes(4, "big")
        + payload
    )


SETTINGS = frame(_SETTINGS, 0, 0, b"")


def call_headers(path: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of a gRPC call."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]


def hpack(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Headers as literals that are not indexed; each part has fewer than 127 bytes."""
    block = b""
    for name, value in headers:
        block += b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
    return block


def message(payload: bytes) -> bytes:
    """A gRPC message that is not compressed."""
    return b"\x00" + len(payload).to_bytes(4, "big") + payload


def call_frames(path: bytes, payload: bytes, *, stream: int = 1) -> bytes:
    """A whole unary call, without the connection's preface."""
    return frame(_HEADERS, _END_HEADERS, stream, hpack(call_headers(path))) + frame(
        _DATA, _END_STREAM, stream, message(payload)
    )


def resident_bytes(pid: int) -> int:
    """The memory that a process holds now; Linux only."""
    with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123  # a virtual file
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
