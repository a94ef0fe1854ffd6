"""The drift check over many customers: time, memory, and how much of both is Evidently.

The churn product's features of generated customers (see `generate`) on eight month ends, with
labels, stand in PostgreSQL; the model was trained as of the end of 1997-11. Each side runs in a
process of its own, so that its peak of memory is its own:

- first check of a version: reads the training rows, stores their statistics, and checks;
- later check: reads the stored statistics and today's features. What is spent in Evidently is timed
  inside of it;
- Evidently on all rows: training rows and today's features read by the same statements, each given
  to Evidently whole, as one writes it first: the same metrics and methods, page and values.

That both find the same columns is checked, and their scores are compared.

    ./pants run benchmarks/monitor_benchmark.py -- --rows 1000000
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from churn.project import PROJECT
from churn_tables import fill
from espalier.postgres import embedded
from espalier.processes import python_environment
from measure import machine, markdown, megabytes, peak_rss

MONTHS = tuple(PROJECT.calendar.as_of(n) for n in range(6))
LABELS = (MONTHS[0], MONTHS[1], MONTHS[2])
# 90 days before MONTHS[2] lies the first label month: the one that training uses.
TRAINED, AS_OF = date(1997, 12, 1), date(1997, 12, 1)
FIRST, LATER, PLAIN = "first check of a version", "later check", "Evidently on all rows"
_SIDES = (FIRST, LATER, PLAIN)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    if options.side:
        print(json.dumps(_measured(options.side, options.dsn, options.version)))
        return
    print(f"{machine()}\n")
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in _SIDES}
    with embedded.temporary() as server:
        fill(server.dsn(), options.rows, MONTHS, LABELS)
        for number in range(options.rounds):
            for name in _SIDES if not options.without_plain else (FIRST, LATER):
                results[name].append(_run(name, server.dsn(), f"v{number}"))
                print(f"{name}: {results[name][-1]}", file=sys.stderr)
    lines = []
    for name, found in results.items():
        if not found:
            continue
        seconds = [r["seconds"] for r in found]
        evidently = statistics.median(r["evidently"] for r in found)
        middle = statistics.median(seconds)
        lines.append(
            [
                name,
                *(f"{v:.1f}" for v in (min(seconds), middle, max(seconds))),
                f"{evidently:.1f}",
                f"{evidently / middle:.0%}",
                megabytes(max(r["peak"] - r["before"] for r in found)),
                megabytes(max(r["peak"] for r in found)),
            ]
        )
    header = ["side", "min s", "median s", "max s", "Evidently s", "its share", "memory added"]
    print(markdown([*header, "peak memory"], lines))
    told = {name: found[0]["drifted"] for name, found in results.items() if found}
    if len({tuple(names) for names in told.values()}) != 1:
        raise SystemExit(f"the sides find other columns: {told}")
    print(f"\n{options.rows:,} customers; drifted: {', '.join(told[LATER]) or 'none'}.")
    if results[PLAIN]:
        ours, theirs = results[LATER][0]["scores"], results[PLAIN][0]["scores"]
        worst = max(abs(ours[name] / theirs[name] - 1) for name in ours if theirs[name] > 0.05)
        print(f"Scores above 0.05 differ by at most {worst:.1%}: sketches against all rows.")


def _run(side: str, dsn: str, version: str) -> dict[str, Any]:
    """One side in a new process."""
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", __file__),
            *("--side", side, "--dsn", dsn, "--version", version),
        ],
        env=python_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answered: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answered


def _measured(side: str, dsn: str, version: str) -> dict[str, Any]:
    # Its import takes seconds once a process, whatever the rows.
    import evidently.metrics  # noqa: F401

    from espalier.monitoring import drift, evidently_adapter

    spent: list[float] = []

    def timed(function: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                spent.append(time.perf_counter() - began)

        return call

    before = peak_rss()
    began = time.perf_counter()
    if side == PLAIN:
        scores, drifted = _plain(dsn, timed)
    else:
        # What calls Evidently, and nothing else of weight.
        evidently_adapter._drift = timed(evidently_adapter._drift)  # noqa: SLF001
        # The check has its own name for it.
        name = "quality"
        setattr(drift, name, timed(getattr(drift, name)))
        with tempfile.TemporaryDirectory() as folder:
            found = drift.check_drift(
                PROJECT,
                as_of=AS_OF,
                dsn=dsn,
                reports_dir=Path(folder),
                model_version=version,
                trained_as_of=TRAINED,
            )
        scores = {name: column.score for name, column in found.columns.items()}
        drifted = sorted([*found.drifted, *found.trending])
    return {
        "seconds": time.perf_counter() - began,
        "evidently": sum(spent),
        "before": before,
        "peak": peak_rss(),
        "scores": scores,
        "drifted": drifted,
    }


def _plain(dsn: str, timed: Any) -> tuple[dict[str, float], list[str]]:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import MissingValueCount, OutRangeValueCount, ValueDrift

    from espalier.features.point_in_time import features_at, training_set
    from espalier.postgres.connect import connect

    names = list(PROJECT.view.features)
    columns = PROJECT.table(PROJECT.view.table)
    with connect(dsn) as connection:
        current = features_at(connection, PROJECT, when=AS_OF)
        trained = training_set(connection, PROJECT, as_of=TRAINED)
    last = trained["label_time"].max() - PROJECT.label.horizon
    reference = trained[trained["label_time"] <= max(last, trained["label_time"].min())]

    def report() -> Any:
        metrics: list[Any] = [
            ValueDrift(column=name, method="wasserstein", threshold=0.2) for name in names
        ]
        for name in names:
            column = columns.column(name)
            metrics += [
                MissingValueCount(column=name),
                OutRangeValueCount(column=name, left=column.minimum, right=column.maximum),
            ]
        definition = DataDefinition(numerical_columns=names)
        run = Report(metrics, include_tests=True).run(
            Dataset.from_pandas(current[names], data_definition=definition),
            Dataset.from_pandas(reference[names], data_definition=definition),
        )
        run.get_html_str(as_iframe=False)
        return json.loads(run.json())

    found = timed(report)()
    scores = {
        m["config"]["column"]: float(m["value"])
        for m in found["metrics"]
        if m["config"]["type"].endswith("ValueDrift")
    }
    return scores, sorted(name for name, score in scores.items() if score >= 0.2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="customers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-plain", action="store_true", help="leave the third side out")
    for internal in ("--side", "--dsn", "--version"):
        parser.add_argument(internal, default="", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
