"""What training costs: time and memory, from the database to the registered champion.

    ./pants run benchmarks/training_benchmark.py                      CDNOW's 23,570 customers
    ./pants run benchmarks/training_benchmark.py -- --rows 100000 300000 1000000

Everything is real: an own PostgreSQL, batches that are ingested, an MLflow server, the gate. The
sizes beyond CDNOW are rows to train on, of customers drawn as `generate` does (ten label months of
each). Every size is trained in a process of its own, so that its peak of memory is its own; that
of the servers is not in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

import generate
import measure
from churn import cdnow
from churn.cdnow_log import packaged_log, read_log
from churn.project import PROJECT
from espalier.features.point_in_time import training_set
from espalier.ingest.run import ingest
from espalier.postgres import embedded, migrate
from espalier.postgres.connect import connect
from espalier.registry import mlflow_server
from espalier.training.build import build
from espalier.training.split import split_by_time
from espalier.training.train import train

T = TypeVar("T")

# After thirteen batches labels of ten months are old enough to train on.
_MONTHS_TO_TRAIN_ON = 10


@dataclass(frozen=True)
class Cost:
    """One training run's.

    Seconds and bytes: `reading` the training set, `building` the model (settings, fits, conversion,
    threshold, intervals), and the `whole` from the database to the promotion with the libraries'
    imports; `peak` is the most memory that the process held by then.
    """

    rows: int
    validation_rows: int
    reading: float
    building: float
    whole: float
    peak: int
    promoted: bool


def measured(dsn: str, tracking_uri: str, as_of: date) -> Cost:
    """Train once in this process; reading and building are timed a second time for themselves."""
    done, whole = _timed(
        lambda: train(PROJECT, as_of=as_of, dsn=dsn, tracking_uri=tracking_uri, who="benchmark")
    )
    peak = measure.peak_rss()
    with connect(dsn) as connection:
        frame, reading = _timed(lambda: training_set(connection, PROJECT, as_of=as_of))
    split = split_by_time(frame, PROJECT.label)
    _, building = _timed(lambda: build(PROJECT, split))
    return Cost(
        rows=len(split.train),
        validation_rows=len(split.validation),
        reading=reading,
        building=building,
        whole=whole,
        peak=peak,
        promoted=done.promoted,
    )


def _timed(function: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = function()
    return result, time.perf_counter() - started


def trained(write: Callable[[Path], object], name: str) -> Cost:
    """Write the batches, ingest them, and train in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch, embedded.temporary() as server:
        folder = Path(scratch)
        with connect(server.dsn()) as connection:
            migrate.migrate(connection)
        embedded.create_database(server, "mlflow")
        write(folder / "data")
        for month in range(cdnow.BATCH_COUNT):
            print(f"{name}: batch {month + 1} of {cdnow.BATCH_COUNT}", file=sys.stderr)
            ingest(
                PROJECT,
                source=folder / "data" / f"month_{month:03}",
                as_of=PROJECT.calendar.as_of(month),
                dsn=server.dsn(),
                reports_dir=folder / "reports",
                who="benchmark",
            )
        with mlflow_server.serve(
            server.dsn("mlflow"), folder / "artifacts", log=folder / "mlflow.log"
        ) as tracking_uri:
            done = subprocess.run(
                [sys.executable, __file__, "--in-process", server.dsn(), tracking_uri],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def table(costs: Sequence[tuple[str, Cost]]) -> str:
    """The costs in Markdown, and how they grow from one size to the next."""
    lines = []
    before: Cost | None = None
    for name, cost in costs:
        growth = ""
        if before is not None:
            times = cost.rows / before.rows
            growth = f"x{times:.1f}: time x{cost.whole / before.whole:.1f}, "
            growth += f"memory x{cost.peak / before.peak:.1f}"
        lines.append(
            [
                name,
                f"{cost.rows:,}",
                f"{cost.validation_rows:,}",
                f"{cost.reading:.1f}",
                f"{cost.building:.1f}",
                f"{cost.whole:.1f}",
                measure.megabytes(cost.peak),
                growth,
            ]
        )
        before = cost
    header = ["data", "rows to train", "to validate", "read s", "build s", "whole s", "peak RSS"]
    return measure.markdown([*header, "growth"], lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="what training costs")
    parser.add_argument("--rows", type=int, nargs="*", help="rows to train on, instead of CDNOW")
    parser.add_argument("--sample", action="store_true", help="CDNOW's sample of a tenth")
    parser.add_argument("--in-process", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.in_process:
        dsn, tracking_uri = asked.in_process
        as_of = PROJECT.calendar.as_of(cdnow.BATCH_COUNT - 1)
        print(json.dumps(vars(measured(dsn, tracking_uri, as_of))))
        return
    costs: list[tuple[str, Cost]] = []
    for rows in asked.rows or ():
        customers = rows // _MONTHS_TO_TRAIN_ON

        def write(into: Path, customers: int = customers) -> object:
            return generate.write_batches(into, customers=customers, months=cdnow.BATCH_COUNT)

        costs.append((f"{customers:,} drawn customers", trained(write, f"{rows:,} rows")))
    if not asked.rows:
        log = packaged_log(sample=asked.sample)
        name = f"CDNOW{', the sample' if asked.sample else ''}"
        costs.append((name, trained(lambda into: cdnow.build(read_log(log), into), name)))
    print(table(costs))
    print(f"\n{measure.machine()}")


if __name__ == "__main__":
    main()
