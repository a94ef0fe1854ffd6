"""A training set of N labels: ours, and Feast's PostgreSQL offline store on the same rows.

The churn product's own tables hold the labels of twelve months and a feature row for each of them,
one in twenty with a correction that became known a month later. Every side answers for every label
with the newest features that were known then. Each runs in a process of its own, so that its peak
of memory is its own; the database is one for all.

- ours: `training_set`, one SQL statement, into a frame;
- Feast's, labels as SQL: `get_historical_features` with `filter_by_created_timestamp`, without which
  it would answer with what was not known yet, the labels by a query, into a frame;
- Feast's, labels as a frame: the same, the labels handed over, which Feast puts into a table first.

Feast's sides read the source of the product's definitions, whose query gives each version once. Over
the bare table PostgreSQL joined Feast's query by nested loops: 20,000 labels took six minutes.

Feast's sides may be run on a share of the labels (`--feast-share`). That all sides give the same
rows and the same sum of a feature is checked.

    ./pants run benchmarks/point_in_time_benchmark.py -- --rows 1000000
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from typing import Any

from churn.project import PROJECT
from espalier.features.point_in_time import training_set
from espalier.ingest import tables
from espalier.postgres import embedded, migrate
from espalier.postgres.connect import Connection, connect
from espalier.processes import python_environment
from measure import machine, markdown, megabytes, peak_rss

MONTHS = 12
AS_OF = date(1998, 12, 31)
OURS, AS_SQL, AS_FRAME = "ours", "Feast's, labels as SQL", "Feast's, labels as a frame"


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    if options.side:
        print(json.dumps(_measured(options.side, options.dsn)))
        return
    few = max(options.rows // options.feast_share, MONTHS)
    sides = {OURS: options.rows, AS_SQL: few, AS_FRAME: few}
    print(f"{machine()}\n")
    results: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for rows in sorted(set(sides.values())):
        with embedded.temporary() as server:
            with connect(server.dsn()) as connection:
                migrate.migrate(connection)
                fill(connection, rows)
            for number in range(options.rounds):
                named = [name for name, count in sides.items() if count == rows]
                for name in named if number % 2 == 0 else reversed(named):
                    results[name].append(_run(name, server.dsn()))
                    print(f"{name}: {results[name][-1]}", file=sys.stderr)
        answers = {
            (found["rows"], found["sum"])
            for name, count in sides.items()
            if count == rows
            for found in results[name]
        }
        if len(answers) != 1:
            raise SystemExit(f"the sides do not agree: {answers}")
    ours = statistics.median(r["seconds"] for r in results[OURS])
    lines = []
    for name, found in results.items():
        seconds = [r["seconds"] for r in found]
        per_label = statistics.median(seconds) / sides[name] * options.rows
        lines.append(
            [
                name,
                f"{sides[name]:,}",
                f"{found[0]['rows']:,.0f}",
                *(f"{v:.2f}" for v in (min(seconds), statistics.median(seconds), max(seconds))),
                f"{per_label / ours:.1f}",
                megabytes(max(r["peak"] - r["before"] for r in found)),
                megabytes(max(r["peak"] for r in found)),
            ]
        )
    header = ["side", "labels", "rows given", "min s", "median s", "max s", "x ours a label"]
    print(markdown([*header, "memory added", "peak memory"], lines))


def _run(side: str, dsn: str) -> dict[str, float]:
    """One side in a new process."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--side", side, "--dsn", dsn],
        env=python_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answered: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answered


def _measured(side: str, dsn: str) -> dict[str, float]:
    prepared = {OURS: _ours, AS_SQL: _feast_by_sql, AS_FRAME: _feast_by_frame}[side](dsn)
    before = peak_rss()
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        frame = prepared()
    seconds = time.perf_counter() - started
    peak = peak_rss()
    found = frame[PROJECT.view.features[0]].dropna()
    return {
        "seconds": seconds,
        "rows": len(found),
        "sum": float(found.sum()),
        "before": before,
        "peak": peak,
    }


def _ours(dsn: str) -> Callable[[], Any]:
    connection = connect(dsn)
    return lambda: training_set(connection, PROJECT, as_of=AS_OF)


_LABELS = """
    SELECT DISTINCT ON (user_id, label_date) user_id, label_value,
        label_date::timestamp AT TIME ZONE 'UTC' AS event_timestamp
    FROM churn.labels WHERE known_at <= '1998-12-31 00:00:00Z'
    ORDER BY user_id, label_date, known_at DESC, snapshot_id DESC
"""


def _feast_by_sql(dsn: str) -> Callable[[], Any]:
    store, features = _feast(dsn)
    return lambda: _retrieved(store, _LABELS, features)


def _feast_by_frame(dsn: str) -> Callable[[], Any]:
    import pandas as pd

    store, features = _feast(dsn)
    with connect(dsn) as connection, connection.cursor() as cursor:
        rows = cursor.execute(_LABELS).fetchall()
    frame = pd.DataFrame(rows, columns=["user_id", "label_value", "event_timestamp"])
    return lambda: _retrieved(store, frame, features)


def _retrieved(store: Any, labels: Any, features: list[str]) -> Any:
    return store.get_historical_features(labels, features).to_df()


def _feast(dsn: str) -> tuple[Any, list[str]]:
    """Feast's offline store over the product's definitions, applied."""
    # Only these sides have the import's memory.
    from espalier.features import feast_store

    feast_store.apply(PROJECT, dsn=dsn)
    store = feast_store.open_store(PROJECT, dsn=dsn)
    store.list_feature_views()
    return store, [f"{PROJECT.view.name}:{name}" for name in PROJECT.view.features]


def fill(connection: Connection, labels: int) -> None:
    """The product's tables with so many labels, as monthly batches would have filled them."""
    tables.ensure(connection, PROJECT)
    connection.execute(
        "INSERT INTO espalier.snapshots (id, project, as_of, revision, digest, files, row_counts,"
        " validation, created_by) OVERRIDING SYSTEM VALUE SELECT n, %s, '1997-01-31'::date + n, 1,"
        " '', '{}', '{}', '{}', 'benchmark' FROM generate_series(1, %s) AS n",
        [PROJECT.name, MONTHS + 1],
    )
    connection.execute("SELECT setseed(0.5)")
    numbers = ", ".join(
        "(random() * 100)::int" if number < 6 else "random() * 100"
        for number in range(len(PROJECT.view.features))
    )
    rows = (
        " FROM generate_series(1, %(users)s) AS u, LATERAL (SELECT"
        " lpad((u * 7919 %% 1000003)::text, 8, '0'),"
        " ('1997-02-01'::date + make_interval(months => %(month)s) - interval '1 day')::date"
        ") AS keys (user_id, day)"
    )
    known = "day::timestamp AT TIME ZONE 'UTC'"
    for month in range(MONTHS):
        # The rest of the division goes to the last month.
        users = labels // MONTHS + (labels % MONTHS if month == MONTHS - 1 else 0)
        values = {"users": users, "month": month, "snapshot": month + 1}
        for into, given in (
            ("features", f"{numbers}, {known}"),
            ("labels", f"random() < 0.5, {known} + interval '90 days'"),
        ):
            query = f"INSERT INTO churn.{into} SELECT user_id, day, {given}, %(snapshot)s{rows}"  # our own names
            connection.execute(query.encode(), values)
    columns = ", ".join(column.name for column in PROJECT.table("features").columns)
    connection.execute(
        f"INSERT INTO churn.features SELECT {columns}, known_at + interval '31 days',"  # noqa: S608  # our own names
        " snapshot_id + 1 FROM churn.features WHERE random() < 0.05 ON CONFLICT DO NOTHING".encode()
    )
    for table in PROJECT.tables:
        connection.execute(f"ANALYZE churn.{table.name}".encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Time a point-in-time training set: ours and Feast's PostgreSQL offline store."
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="labels (default 1000000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each side (default 3)")
    parser.add_argument(
        "--feast-share", type=int, default=1, help="Feast's sides get one label of so many"
    )
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--dsn", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
