"""A batch's content digest: the same for the same rows, whatever their order and file format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from psycopg import sql

from espalier.contract import Table
from espalier.ingest.staging import SCHEMA, Staging
from espalier.postgres.connect import Connection


def content_digest(connection: Connection, place: Staging, tables: Sequence[Table]) -> str:
    """The sha256, in hex, over all staged tables.

    A row's canonical form is PostgreSQL's text of its values by column name, hashed by sha256; a
    table's is its sorted row hashes; the batch's the tables by name, with their columns' types.
    `connection` writes dates as ISO, times in UTC and floats in their shortest exact form.
    """
    content = []
    for table in sorted(tables, key=lambda t: t.name):
        columns = sorted(table.columns, key=lambda c: c.name)
        query = sql.SQL(
            "SELECT encode(sha256(coalesce(string_agg(hash, ''::bytea ORDER BY hash), ''::bytea)), "
            "'hex') FROM (SELECT sha256(convert_to(ROW({})::text, 'UTF8')) AS hash FROM {}) AS rows"
        ).format(
            sql.SQL(", ").join(sql.Identifier(c.name) for c in columns),
            sql.Identifier(SCHEMA, place.typed(table)),
        )
        row = connection.execute(query).fetchone()
        assert row is not None, "an aggregate gives one row"
        content.append([table.name, [[c.name, c.type.value] for c in columns], row[0]])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
