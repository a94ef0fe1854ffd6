"""Whether predictions stay as quick when the online store grows.

./pants run benchmarks/serving/growth_benchmark.py -- --rounds 5 --entities 10000 1000000 10000000

Needs ghz on PATH; ten million entities take some 2 GB of disk and a few minutes to make. Each size
is a table of its own, filled with the real customers' features over and over under made-up keys. In
each round every size takes the store's place in turn, and a fresh server reads keys all over it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from espalier.features import layout
from espalier.postgres.connect import Connection, connect
from espalier.project import Project
from measure import machine, markdown, megabytes, spread, spread_header
from serving import load, servers
from serving.load import PREDICT, Load
from serving.place import Place, prepared

# Of one round.
_READS, _BATCH, _KEYS_ASKED = 300, 256, 20_000
_KEY_WIDTH = 9
_INSERT = """
WITH numbered AS MATERIALIZED (SELECT row_number() OVER () - 1 AS place, * FROM {table})
INSERT INTO {sized} ({key}, {rest})
SELECT lpad(n::text, {width}, '0'), {rest} FROM generate_series(0, {many} - 1) AS n
JOIN numbered ON place = n % (SELECT count(*) FROM {table})
"""


@dataclass(frozen=True)
class _Round:
    """Milliseconds that a read of one row and of a batch take (medians), and two loads."""

    one: float
    batch: float
    single: Load
    many: Load


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/seeds"), help="churn's batches")
    parser.add_argument("--entities", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--server", help="churn-server.pex; default: from source")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of each load")
    parser.add_argument("--callers", type=int, default=64)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        prepared(options.data.absolute(), Path(scratch)) as place,
    ):
        sizes = sorted(options.entities)
        bytes_of = {many: _fill(place, many) for many in sizes}
        found: dict[int, list[_Round]] = {many: [] for many in sizes}
        for number in range(options.rounds):
            for many in sizes if number % 2 == 0 else reversed(sizes):
                with _in_place(place, many):
                    one = _round(place, many, number, options)
                found[many].append(one)
                print(f"round {number + 1}: {many:,} entities: {one}", file=sys.stderr)
        _tell(found, bytes_of)
        print(f"\n{options.callers} callers; {machine()}")


def _table(project: Project) -> sql.Identifier:
    return sql.Identifier(layout.SCHEMA, layout.table_name(project.name, project.view.name))


def _sized(many: int) -> sql.Identifier:
    return sql.Identifier(layout.SCHEMA, f"sized_{many}")


def _fill(place: Place, many: int) -> int:
    """Make the table of that many entities; its bytes with the index."""
    began = time.perf_counter()
    key = place.project.entity.join_key
    with connect(place.dsn, autocommit=True) as connection:
        names = [
            sql.Identifier(row[0])
            for row in connection.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 "
                "AND NOT attisdropped AND attname <> %s ORDER BY attnum",
                [_table(place.project).as_string(connection), key],
            )
        ]
        parts = {
            "table": _table(place.project),
            "sized": _sized(many),
            "key": sql.Identifier(key),
            "rest": sql.SQL(", ").join(names),
            "many": sql.Literal(many),
            "width": sql.Literal(_KEY_WIDTH),
        }
        for statement in (
            "CREATE TABLE {sized} (LIKE {table} INCLUDING ALL EXCLUDING INDEXES)",
            _INSERT,
            "ALTER TABLE {sized} ADD PRIMARY KEY ({key})",
            "VACUUM (ANALYZE) {sized}",
            "CHECKPOINT",
        ):
            connection.execute(sql.SQL(statement).format(**parts))
        found = connection.execute(
            "SELECT pg_total_relation_size(%s::regclass)", [_sized(many).as_string(connection)]
        ).fetchone()
    assert found is not None, "one value"
    print(f"{many:,} entities made in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    size: int = found[0]
    return size


@contextmanager
def _in_place(place: Place, many: int) -> Iterator[None]:
    """The table of that size has the store's name meanwhile."""
    name = layout.table_name(place.project.name, place.project.view.name)
    _rename(place, (name, "set_aside"), (f"sized_{many}", name))
    try:
        yield
    finally:
        _rename(place, (name, f"sized_{many}"), ("set_aside", name))


def _rename(place: Place, *names: tuple[str, str]) -> None:
    with connect(place.dsn) as connection:
        for before, after in names:
            connection.execute(
                sql.SQL("ALTER TABLE {} RENAME TO {}").format(
                    sql.Identifier(layout.SCHEMA, before), sql.Identifier(after)
                )
            )


def _round(place: Place, many: int, number: int, options: argparse.Namespace) -> _Round:
    # Other keys in each round, so that not the same pages are read again.
    keys = random.Random(number)  # noqa: S311  # no secrets
    asked = [f"{keys.randrange(many):0{_KEY_WIDTH}}" for _ in range(_KEYS_ASKED)]
    with connect(place.dsn, autocommit=True) as connection:
        one = _reads(connection, place.project, lambda: [keys.choice(asked)])
        batch = _reads(connection, place.project, lambda: keys.sample(asked, _BATCH))
    messages: list[dict[str, object]] = [{"entity_id": key} for key in asked]
    with servers.ours(place, program=options.server) as side:
        load.grpc(side.grpc, PREDICT, messages, callers=8, seconds=1)
        single, loaded = (
            load.grpc(side.grpc, PREDICT, messages, callers=callers, seconds=options.seconds)
            for callers in (1, options.callers)
        )
    return _Round(one, batch, single, loaded)


def _reads(connection: Connection, project: Project, keys: Callable[[], list[str]]) -> float:
    """The median milliseconds of a prepared read."""
    query = layout.select_rows(
        project.name, project.view.name, project.entity.join_key, project.view.features
    )
    seconds = []
    for _ in range(_READS):
        wanted = keys()
        began = time.perf_counter()
        rows = connection.execute(query, [wanted], prepare=True).fetchall()
        seconds.append(time.perf_counter() - began)
        if len(rows) != len(set(wanted)):
            raise SystemExit(f"{len(rows)} rows for {len(set(wanted))} keys")
    return statistics.median(seconds) * 1e3


def _tell(found: dict[int, list[_Round]], bytes_of: dict[int, int]) -> None:
    base = found[min(found)]
    lines, ratios = [], []
    for many, rounds in found.items():
        pairs = list(zip(rounds, base, strict=True))
        lines.append(
            [
                f"{many:,}",
                megabytes(bytes_of[many]),
                *spread([r.one for r in rounds], ".2f"),
                *spread([r.batch for r in rounds], ".2f"),
                *spread([r.many.rate for r in rounds], ",.0f"),
                *spread([r.single.p50 for r in rounds], ".2f"),
                str(sum(r.many.failed + r.single.failed for r in rounds)),
            ]
        )
        ratios.append(
            [
                f"{many:,}",
                *spread([r.one / b.one for r, b in pairs], ".2f"),
                *spread([r.batch / b.batch for r, b in pairs], ".2f"),
                *spread([r.many.rate / b.many.rate for r, b in pairs], ".2f"),
                *spread([r.single.p50 / b.single.p50 for r, b in pairs], ".2f"),
            ]
        )
    measured = [
        *spread_header("1 row ms"),
        *spread_header(f"{_BATCH} rows ms"),
        *spread_header("answers/s"),
        *spread_header("p50 ms, 1 caller"),
    ]
    print(markdown(["entities", "table and index", *measured, "failed"], lines))
    print("\n" + markdown([f"x {min(found):,}", *measured], ratios))


if __name__ == "__main__":
    main()
