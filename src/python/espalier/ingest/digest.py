"""A batch's content digest: the same for the same rows, whatever their order and file format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from psycopg import sql

from espalier.contract import Table
from espalier.ingest.staging import SCHEMA, Staging
from espalier.postgres.connect import Connection

_HASH_BYTES = 32


def content_digest(connection: Connection, place: Staging, tables: Sequence[Table]) -> str:
    """The sha256, in hex, over all staged tables.

    A row's canonical form is PostgreSQL's text of its values by column name, hashed by sha256; a
    table's is its sorted row hashes; the batch's the tables by name, with their columns' types. So
    two batches of one digest would be a collision of sha256, also if someone made them on purpose:
    a sum or a xor of the rows' hashes needs no sorting and would not hold against that.
    `connection` writes dates as ISO, times in UTC and floats in their shortest exact form.
    """
    content = []
    for table in sorted(tables, key=lambda t: t.name):
        columns = sorted(table.columns, key=lambda c: c.name)
        content.append(
            [
                table.name,
                [[c.name, c.type.value] for c in columns],
                _rows_digest(connection, place, table, [c.name for c in columns]),
            ]
        )
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _rows_digest(
    connection: Connection, place: Staging, table: Table, columns: Sequence[str]
) -> str:
    """The sha256 over the table's sorted row hashes.

    PostgreSQL hashes and puts the hashes into 256 heaps by their first byte, in parallel; they are
    sorted here, of which there is one heap at a time.
    """
    query = sql.SQL(
        "SELECT string_agg(hash, ''::bytea) FROM "
        # The clock keeps the planner from computing each hash twice, and from nothing else.
        "(SELECT sha256(convert_to(ROW({})::text, 'UTF8')) AS hash, clock_timestamp() FROM {}) "
        "AS rows GROUP BY get_byte(hash, 0) ORDER BY get_byte(hash, 0)"
    ).format(
        sql.SQL(", ").join(sql.Identifier(name) for name in columns),
        sql.Identifier(SCHEMA, place.typed(table)),
    )
    digest = hashlib.sha256()
    with connection.cursor() as cursor:
        for (heap,) in cursor.stream(query, binary=True):
            hashes = np.frombuffer(heap, dtype=f"S{_HASH_BYTES}")
            digest.update(np.sort(hashes).tobytes())
    return digest.hexdigest()
