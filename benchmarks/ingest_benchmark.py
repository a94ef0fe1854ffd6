"""How long an ingest takes, against a bare COPY of the same files.

    ./pants run benchmarks/ingest_benchmark.py -- --rows 100000 1000000 10000000

The batch is a first one of the churn product: `--rows` feature rows, and a quarter as many users
and labels. Each side runs in a process of its own against one durable PostgreSQL, the sides taking
turns. Seconds do not count the start of Python and the import of libraries, which are told apart:
no batch makes them longer. Memory is the process's peak, with its libraries.

Sides: `COPY` into typed tables without a key; `COPY, key` into the same with the declared primary
key; `ingest` of csv, csv.gz or parquet: read, typed, validated by Great Expectations, digested and
stored as a snapshot, with its report.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

import generate
from churn.project import PROJECT
from espalier.contract import Table
from espalier.ingest import batch as batches
from espalier.ingest import run, staging, tables
from espalier.postgres import embedded, migrate
from espalier.postgres.connect import connect
from espalier.processes import python_environment, reserved_port
from measure import Timing, machine, markdown, megabytes, peak_rss, table

AS_OF = PROJECT.calendar.as_of(0)
_CHUNK = 1 << 20
_COPY, _COPY_KEY = "COPY", "COPY, key"
_CSV: generate.Format = "csv"


@dataclass(frozen=True)
class Measured:
    """One run of one side; `stages` are parts of the seconds."""

    seconds: float
    import_seconds: float
    peak: int
    stages: dict[str, float]


def bare_copy(folder: Path, dsn: str, *, key: bool) -> None:
    """COPY every file of the batch into a typed table, in one transaction."""
    with connect(dsn) as connection:
        for one in PROJECT.tables:
            connection.execute(_create_bare(one, key=key))
            copy = sql.SQL("COPY {} FROM STDIN (FORMAT csv, HEADER)").format(
                sql.Identifier("bare", one.name)
            )
            with (
                (folder / f"{one.name}.csv").open("rb") as file,
                connection.cursor() as cursor,
                cursor.copy(copy) as writer,
            ):
                while chunk := file.read(_CHUNK):
                    writer.write(chunk)


def _create_bare(one: Table, *, key: bool) -> sql.Composed:
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(c.name), sql.SQL(c.type.value)) for c in one.columns
    ]
    if key:
        names = sql.SQL(", ").join(sql.Identifier(name) for name in one.key)
        columns.append(sql.SQL("PRIMARY KEY ({})").format(names))
    return sql.SQL("CREATE TABLE {} ({})").format(
        sql.Identifier("bare", one.name), sql.SQL(", ").join(columns)
    )


def child(side: str, folder: Path, dsn: str, reports: Path) -> Measured:
    """Run one side in this process."""
    started = time.perf_counter()
    stages: dict[str, float] = {}
    if side in (_COPY, _COPY_KEY):
        imported = time.perf_counter()
        bare_copy(folder, dsn, key=side == _COPY_KEY)
    else:
        import espalier.ingest.great_expectations_adapter
        import espalier.ingest.parquet  # noqa: F401  # with what it imports itself

        for module, name in (
            (staging, "load"),
            (batches, "_digest"),
            (batches, "validate"),
            (tables, "add_rows"),
        ):
            _time(module, name, stages)
        imported = time.perf_counter()
        run.ingest(
            PROJECT, source=folder, as_of=AS_OF, dsn=dsn, reports_dir=reports, who="benchmark"
        )
    return Measured(time.perf_counter() - imported, imported - started, peak_rss(), stages)


def _time(module: Any, name: str, stages: dict[str, float]) -> None:
    """Let a function of a module add its seconds to the stages."""
    inner: Callable[..., Any] = getattr(module, name)

    def timed(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return inner(*arguments, **options)
        finally:
            stages[name] = stages.get(name, 0.0) + time.perf_counter() - started

    setattr(module, name, timed)


def _run_child(side: str, folder: Path, dsn: str, reports: Path) -> Measured:
    done = subprocess.run(
        [sys.executable, __file__, "--child", side, str(folder), dsn, str(reports)],
        env={**os.environ, **python_environment()},
        stdout=subprocess.PIPE,
        check=True,
    )
    return Measured(**json.loads(done.stdout))


def _empty(dsn: str) -> None:
    """Take away what the side before left, and let PostgreSQL write it off."""
    with connect(dsn, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS churn, bare CASCADE")
        connection.execute("CREATE SCHEMA bare")
        # Past the triggers that refuse this to everyone else.
        connection.execute("SET session_replication_role = replica")
        connection.execute("TRUNCATE espalier.snapshots, espalier.contracts CASCADE")
        connection.execute("CHECKPOINT")


def compare(
    rows: int, formats: Sequence[generate.Format], *, count: int, work: Path
) -> Mapping[str, Timing[Measured]]:
    """Time all sides at one size, in turns."""
    folders = {}
    for file_format in dict.fromkeys([_CSV, *formats]):
        (written,) = generate.write_batches(
            work / file_format,
            customers=max(1, rows // 4),
            months=1,
            file_format=file_format,
        )
        folders[file_format] = written.folder
    sides = {_COPY: folders["csv"], _COPY_KEY: folders["csv"]} | {
        f"ingest {file_format}": folders[file_format] for file_format in formats
    }
    results: dict[str, list[Measured]] = {side: [] for side in sides}
    with ExitStack() as stack:
        port = stack.enter_context(reserved_port())
        server = stack.enter_context(
            embedded.serve(work / "postgres", log=work / "postgres.log", port=port)
        )
        with connect(server.dsn()) as connection:
            migrate.migrate(connection)
        for number in range(count):
            for side in list(sides) if number % 2 == 0 else reversed(list(sides)):
                _empty(server.dsn())
                one = _run_child(side, sides[side], server.dsn(), work / "reports")
                print(f"{rows:,} rows, round {number + 1}: {side} {one}", file=sys.stderr)
                results[side].append(one)
    return {
        side: Timing(side, tuple(one.seconds for one in its), tuple(its))
        for side, its in results.items()
    }


def told(rows: int, timings: Mapping[str, Timing[Measured]]) -> str:
    """What was measured at one size, in Markdown."""
    lines = []
    for side, timing in timings.items():
        middle = sorted(timing.results, key=lambda one: one.seconds)[len(timing.results) // 2]
        stages = ", ".join(f"{name} {value:.2f}" for name, value in middle.stages.items())
        peak = max(one.peak for one in timing.results)
        ratio = timing.median / timings[_COPY_KEY].median
        lines.append(
            [side, megabytes(peak), f"{middle.import_seconds:.1f}", f"{ratio:.2f}", stages]
        )
    return "\n\n".join(
        [
            f"### {rows:,} feature rows, with {rows // 4:,} users and labels each",
            table(timings, rows=rows + 2 * (rows // 4), against=_COPY),
            markdown(["side", "peak memory", "import s", f"x {_COPY_KEY}", "stages, s"], lines),
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["--child"]:
        side, folder, dsn, reports = arguments[1:]
        print(json.dumps(asdict(child(side, Path(folder), dsn, Path(reports)))))
        return 0
    parser = argparse.ArgumentParser(description="Time an ingest against a bare COPY")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--formats", nargs="+", choices=["csv", "csv.gz", "parquet"], default=["csv"]
    )
    options = parser.parse_args(arguments)
    print(machine())
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="espalier-ingest-") as folder:
            work = Path(folder)
            timings = compare(rows, options.formats, count=options.rounds, work=work)
        print(f"\n{told(rows, timings)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
