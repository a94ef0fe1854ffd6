"""How fast features get online: ours, Feast's PostgreSQL store, and a bare COPY plus upsert.

N entities with 20 features (ten doubles, ten integers, some null) are in one table. Timed are

- ours: `FeatureStore.materialize` with the in-database engine into the wide-row store;
- ours, local engine: Feast's engine, which hands every row to the store as protobuf (a tenth of N);
- Feast's: `FeatureStore.materialize` into Feast's PostgreSQL store (a tenth of N);
- bare: COPY of the same rows from buffers that are ready, into a temporary table, and one INSERT
  with ON CONFLICT into a table of the same shape.

The sides of a tenth are told per row, as if their time grew with the rows and no faster. All are on
one embedded PostgreSQL that does not wait for the disk. Each round begins with an empty online
table; a second table of results is for rows that are already there.

    ./pants run benchmarks/materialize_benchmark.py -- --rows 1000000
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from feast import Entity, FeatureStore, FeatureView, Field, RepoConfig, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Float64, Int64, String
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from espalier.features import feast_store
from espalier.postgres import embedded
from espalier.postgres.connect import Connection, connect
from measure import Timing, machine, markdown, megabytes, peak_rss, rounds

FEATURES = {f"f{i}": Float64 if i < 10 else Int64 for i in range(20)}
START, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 3, tzinfo=UTC)
OURS = "espalier.features.wide_row_store.WideRowOnlineStore"
IN_DATABASE = "espalier.features.in_database_engine.InDatabaseComputeEngine"
_BUFFER = 1 << 20
_SHARE = 10
_READS = 1000


@dataclass(frozen=True)
class Side:
    """A way to get rows online: what is timed, its table, and how many rows it handles."""

    run: Callable[[], None]
    table: sql.Identifier
    rows: int


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    with embedded.temporary() as server, TemporaryDirectory() as folder:
        bench = Bench(server.dsn(), Path(folder), options.rows)
        with bench.sides() as (sides, stores):
            few = {name: side for name, side in sides.items() if side.rows < options.rows}
            all_rows = {name: side for name, side in sides.items() if name not in few}
            print(f"{options.rows:,} entities x {len(FEATURES)} features; {machine()}\n")
            for title, empty in (
                ("Into an empty table", True),
                ("Over rows that are there", False),
            ):
                timings: dict[str, Timing[None]] = {}
                for group, n in ((all_rows, options.rounds), (few, options.slow_rounds)):
                    timings |= rounds(
                        {name: side.run for name, side in group.items()},
                        n,
                        prepare={name: bench.emptier(side, empty) for name, side in group.items()},
                    )
                print(f"{title}:\n\n{_report(timings, sides, options.rows)}\n")
            print(f"Peak memory of this process: {megabytes(peak_rss())}\n")
            print(_reads(stores))


def _report(timings: dict[str, Timing[None]], sides: dict[str, Side], rows: int) -> str:
    scaled = {
        name: [seconds * rows / sides[name].rows for seconds in timing.seconds]
        for name, timing in timings.items()
    }
    medians = {name: statistics.median(seconds) for name, seconds in scaled.items()}
    lines = [
        [
            name,
            f"{sides[name].rows:,}",
            *(f"{value:.2f}" for value in (min(seconds), medians[name], max(seconds))),
            f"{rows / medians[name]:,.0f}",
            f"{medians[name] / medians['ours']:.2f}",
        ]
        for name, seconds in scaled.items()
    ]
    header = ["side", "rows measured", "min s", "median s", "max s", "rows/s", "x ours"]
    return markdown(header, lines)


def _reads(stores: dict[str, FeatureStore]) -> str:
    """One entity's 20 features by the SDK, taking turns."""
    features = [f"v:{name}" for name in FEATURES]
    seconds: dict[str, list[float]] = {name: [] for name in stores}
    for number in range(-50, _READS):
        entity = [{"id": f"user-{number % 997 + 1}"}]
        for name, store in stores.items():
            started = time.perf_counter()
            store.get_online_features(features, entity).to_dict()
            if number >= 0:
                seconds[name].append(time.perf_counter() - started)
    lines = []
    for name, spent in seconds.items():
        ordered = sorted(spent)
        cells = (ordered[0], statistics.median(ordered), ordered[int(len(ordered) * 0.99)])
        lines.append([name, *(f"{value * 1e3:.2f}" for value in cells)])
    header = ["get_online_features, one entity", "min ms", "median ms", "p99 ms"]
    return markdown(header, lines)


class Bench:
    """The database, its rows, and the stores over it."""

    def __init__(self, dsn: str, folder: Path, rows: int) -> None:
        self.dsn, self.folder, self.rows = dsn, folder, rows
        self.few = max(rows // _SHARE, 1)
        parts = conninfo_to_dict(dsn)
        self.place: dict[str, Any] = {
            "host": parts["host"],
            "port": int(parts["port"] or 0),
            "database": parts["dbname"],
            "user": parts["user"],
            "password": parts["password"],
        }
        with connect(dsn) as connection:
            _fill(connection, "all_rows", self.rows)
            _fill(connection, "few_rows", self.few)

    @contextmanager
    def sides(self) -> Iterator[tuple[dict[str, Side], dict[str, FeatureStore]]]:
        """The sides, and the stores whose reads are compared."""
        stores = {
            "ours": self._store("ours", OURS, IN_DATABASE, "all_rows"),
            "ours, local engine": self._store("local", OURS, "local", "few_rows"),
            "Feast's": self._store("feast", "postgres", "local", "few_rows"),
        }
        tables = {
            "ours": sql.Identifier("online", "ours_v"),
            "ours, local engine": sql.Identifier("online", "local_v"),
            "Feast's": sql.Identifier("public", "feast_v"),
        }
        bare = self._bare()
        yield (
            {
                "bare COPY + upsert": Side(bare, sql.Identifier("public", "bare"), self.rows),
                **{
                    name: Side(
                        lambda store=store: _materialize(store),  # type: ignore[misc]
                        tables[name],
                        self.rows if name == "ours" else self.few,
                    )
                    for name, store in stores.items()
                },
            },
            {name: stores[name] for name in ("ours", "Feast's")},
        )
        for store in stores.values():
            feast_store.close(store)

    def emptier(self, side: Side, empty: bool) -> Callable[[], None]:  # noqa: FBT001  # one of two
        """What is done before a round: the table emptied, or its dead rows taken away."""

        def prepare() -> None:
            with connect(self.dsn, autocommit=True) as connection:
                if empty:
                    connection.execute(sql.SQL("TRUNCATE {}").format(side.table))
                else:
                    connection.execute(sql.SQL("VACUUM {}").format(side.table))
                connection.execute("CHECKPOINT")

        return prepare

    def _store(self, project: str, online: str, engine: str, table: str) -> FeatureStore:
        entity = Entity(name="id", join_keys=["id"], value_type=ValueType.STRING)
        ssl = {"sslmode": "prefer"}
        store = FeatureStore(
            config=RepoConfig(
                project=project,
                provider="local",
                registry=str(self.folder / f"{project}.db"),
                offline_store={
                    "type": "espalier.features.as_known_store.AsKnownOfflineStore",
                    **self.place,
                    **ssl,
                },
                online_store={
                    "type": online,
                    **self.place,
                    **(ssl if online == "postgres" else {}),
                    **({"db_schema": "public"} if online == "postgres" else {}),
                },
                batch_engine={"type": engine},
                materialization={"pull_latest_features": True},
                entity_key_serialization_version=3,
            )
        )
        view = FeatureView(
            name="v",
            entities=[entity],
            ttl=timedelta(days=365),
            schema=[
                Field(name="id", dtype=String),
                *(Field(name=name, dtype=dtype) for name, dtype in FEATURES.items()),
            ],
            source=PostgreSQLSource(
                name="rows",
                table=f"public.{table}",
                timestamp_field="event_timestamp",
                created_timestamp_column="created",
            ),
        )
        store.apply([entity, view])
        return store

    def _bare(self) -> Callable[[], None]:
        names = sql.SQL(", ").join(map(sql.Identifier, FEATURES))
        data = bytearray()
        with connect(self.dsn) as connection:
            connection.execute("CREATE TABLE bare (LIKE online.ours_v INCLUDING ALL)")
            query = sql.SQL(
                "COPY (SELECT id, event_timestamp, created, {} FROM all_rows)"
                " TO STDOUT (FORMAT BINARY)"
            ).format(names)
            with connection.cursor().copy(query) as copy:
                while block := copy.read():
                    data += block
        buffers = [bytes(data[at : at + _BUFFER]) for at in range(0, len(data), _BUFFER)]
        changes = sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
            for name in ("event_timestamp", "created_timestamp", *FEATURES)
        )
        upsert = sql.SQL(
            "INSERT INTO bare SELECT * FROM batch ON CONFLICT (id) DO UPDATE SET {}"
        ).format(changes)

        def run() -> None:
            with connect(self.dsn) as connection:
                connection.execute("CREATE TEMPORARY TABLE batch (LIKE bare) ON COMMIT DROP")
                with connection.cursor().copy("COPY batch FROM STDIN (FORMAT BINARY)") as copy:
                    for buffer in buffers:
                        copy.write(buffer)
                connection.execute(upsert)

        return run


def _materialize(store: FeatureStore) -> None:
    # Feast prints its progress.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        store.materialize(START, END)


def _fill(connection: Connection, table: str, rows: int) -> None:
    """The source's rows, one an entity, in no order; every tenth value is null."""
    columns = ", ".join(
        f"{name} {'double precision' if dtype is Float64 else 'bigint'}"
        for name, dtype in FEATURES.items()
    )
    values = ", ".join(
        f"CASE WHEN random() < 0.9 THEN {'random()' if dtype is Float64 else '(random() * 1e6)::bigint'} END"
        for dtype in FEATURES.values()
    )
    connection.execute(
        f"CREATE TABLE {table} (id text NOT NULL, event_timestamp timestamptz NOT NULL,"
        f" created timestamptz NOT NULL, {columns})".encode()
    )
    connection.execute("SELECT setseed(0.5)")
    connection.execute(
        f"INSERT INTO {table} SELECT 'user-' || i, '2020-01-01 00:00:00Z'::timestamptz"  # noqa: S608
        f" + random() * interval '1 day', '2020-01-02 00:00:00Z', {values}"
        f" FROM generate_series(1, {rows}) AS i ORDER BY random()".encode()
    )
    connection.execute(f"ANALYZE {table}".encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Time features into the online store: ours, Feast's, and a bare COPY + upsert."
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="entities (default 1000000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all rows (default 3)")
    parser.add_argument(
        "--slow-rounds", type=int, default=1, help="rounds of the sides of a tenth (default 1)"
    )
    return parser


if __name__ == "__main__":
    main()
