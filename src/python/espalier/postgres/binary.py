"""PostgreSQL's binary form of values and of COPY's rows.

PostgreSQL's documentation of COPY, "Binary Format", says how a row is written: the count of its
fields, then each field's length and bytes, the most significant first. Times are microseconds from
the year 2000 on.
"""

from __future__ import annotations

from datetime import UTC, datetime

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
# Without flags, and nothing more to it.
HEADER = SIGNATURE + bytes(8)
# Fewer fields than none end the rows.
END = b"\xff\xff"
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
# What is added to PostgreSQL's microseconds to count from 1970 on, as NumPy and Arrow do.
EPOCH_SHIFT = 946_684_800_000_000
