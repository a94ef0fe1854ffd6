"""The churn product's tables in PostgreSQL with generated customers, as its batches would fill them."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.csv
from psycopg import sql

from churn.project import PROJECT
from espalier.ingest import tables
from espalier.postgres.connect import Connection, connect
from espalier.postgres.migrate import migrate
from generate import chunks, features_of, labels_of

_START = date(1997, 1, 1)


def fill(dsn: str, customers: int, months: Sequence[date], labels: Sequence[date] = ()) -> None:
    """Migrate, and store features of each of `months` and labels of `labels`, one snapshot each.

    Features are known on their day, labels when their horizon has passed.
    """
    days = (max([*months, *labels]) - _START).days + 1
    horizon = PROJECT.label.horizon
    with connect(dsn) as connection:
        migrate(connection)
        tables.ensure(connection, PROJECT)
        for day in months:
            _store(
                connection,
                "features",
                features_of,
                day=day,
                known=day,
                customers=customers,
                days=days,
            )
        for day in labels:
            _store(
                connection,
                "labels",
                labels_of,
                day=day,
                known=day + horizon,
                customers=customers,
                days=days + horizon.days,
            )
        connection.commit()
        connection.autocommit = True
        connection.execute("ANALYZE churn.features, churn.labels")
    print(f"{customers:,} customers, {len(months)} months of features each", file=sys.stderr)


def _store(
    connection: Connection,
    table: str,
    rows_of: Any,
    *,
    day: date,
    known: date,
    customers: int,
    days: int,
) -> None:
    made = connection.execute(
        "INSERT INTO espalier.snapshots (project, as_of, revision, digest, files, row_counts, "
        "validation, created_by) SELECT %(project)s, %(known)s, 1 + count(*), '', '{}', '{}', "
        "'{}', 'benchmark' FROM espalier.snapshots "
        "WHERE project = %(project)s AND as_of = %(known)s RETURNING id",
        {"project": PROJECT.name, "known": known},
    ).fetchone()
    assert made is not None, "a row was inserted"
    columns = [column.name for column in PROJECT.table(table).columns]
    copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
        sql.Identifier(PROJECT.name, table),
        sql.SQL(", ").join(map(sql.Identifier, [*columns, "known_at", "snapshot_id"])),
    )
    with connection.cursor() as cursor, cursor.copy(copy) as stream:
        # The orders are drawn again for each day, so that no more than a chunk is held.
        for orders in chunks(customers=customers, days=days, seed=1):
            rows = rows_of(orders, day).select(columns)
            for name, value in (("known_at", f"{known} 00:00Z"), ("snapshot_id", made[0])):
                rows = rows.append_column(name, pa.array([value] * len(rows)))
            buffer = io.BytesIO()
            pyarrow.csv.write_csv(rows, buffer, pyarrow.csv.WriteOptions(include_header=False))
            stream.write(buffer.getbuffer())
