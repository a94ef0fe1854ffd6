"""The months of the churn product, one after the other, through the loop flow: what it did in each.

Each replay has a PostgreSQL and an MLflow of its own. After a month's loop a prediction server
predicts for every customer with the champion, as of that day, so live performance comes three months
later, with the labels. A month's row tells what the loop saw, decided and did. In resampled replays
every month is a sample of the first month's customers, so that nothing changes but chance.

Each month's loop is run twice; that the second run changes nothing is checked. Ends with 1 when the
real months led to no training beyond the first, or any resampled month asked for one.

With --by-worker the loop is its PEX, deployed and run by a Prefect worker on a host without our
sources, and so are the trainings that it asks for and the prediction server.

    ./pants run benchmarks/replay_benchmark.py
    ./pants run benchmarks/replay_benchmark.py -- --replay real --by-worker dist
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import resampled
from churn.project import PROJECT
from espalier.postgres.connect import Connection, connect
from measure import machine, markdown
from replay_places import Place, by_worker, in_this_process

_SEEDS = Path("data/seeds/churn")
_HEADER = ["month", "drift", "live ROC-AUC", "decision", "why", "gate", "champion"]
# What one loop leaves, by table; a second one must add nothing.
_COUNTED = ("snapshots", "drift", "live_performance", "actions", "ledger")


def replay(place: Place, months: Path, *, count: int) -> list[Mapping[str, Any]]:
    """What the loop told of each month, and what was measured of what was served.

    Args:
        place: Where it runs, with an empty database.
        months: The folder with month_000 and so on.
        count: How many months.

    Raises:
        RuntimeError: a second loop of a month changed something.
    """
    told: list[Mapping[str, Any]] = []
    with connect(place.dsn) as connection:
        for number in range(count):
            source = months / f"month_{number:03}"
            day = PROJECT.calendar.as_of(number)
            facts = place.run(day, source)
            left = _counts(connection)
            again = place.run(day, source)
            if _counts(connection) != left or {**again, "ingest": facts["ingest"]} != facts:
                raise RuntimeError(f"a second loop of {day} changed something: {facts} {again}")
            told.append({**facts, "measured": _measured(connection, day.isoformat())})
            if facts["champion"] is not None:
                place.serve(day, source / "users.csv")
            print(f"{day}: {facts['decision']}, {facts['why']}", file=sys.stderr)
    return told


def _counts(connection: Connection) -> dict[str, int]:
    connection.rollback()
    found = {}
    for name in _COUNTED:
        row = connection.execute(f"SELECT count(*) FROM espalier.{name}").fetchone()  # noqa: S608
        assert row is not None, "an aggregate gives a row"
        found[name] = row[0]
    return found


def _measured(connection: Connection, day: str) -> str:
    """The newest live ROC-AUC known on that day, and whose it is."""
    found = connection.execute(
        "SELECT value, low, high, model_version, label_time FROM espalier.live_performance_latest "
        "WHERE project = %s AND metric = 'roc_auc' AND role = 'champion' "
        "AND label_time <= %s::date - %s ORDER BY label_time DESC LIMIT 1",
        [PROJECT.name, day, PROJECT.label.horizon.days],
    ).fetchone()
    connection.rollback()
    if found is None:
        return ""
    value, low, high, version, label_time = found
    return f"{value:.3f} ({low:.3f} to {high:.3f}), version {version} on {label_time}"


def reacted(facts: Mapping[str, Any]) -> bool:
    """Whether a month asked for a training although there was a champion."""
    return facts["looked at"] is not None and facts["decision"] != "none"


def table(told: Sequence[Mapping[str, Any]]) -> str:
    """The months in Markdown."""
    return markdown(
        _HEADER,
        [
            [
                facts["as_of"],
                {None: "", True: "yes", False: "no"}[facts["drift"]],
                facts["measured"],
                facts["decision"],
                facts["why"],
                f"{facts['outcome']}: {facts['gate']}" if facts["outcome"] else "",
                facts["champion"] or "",
            ]
            for facts in told
        ],
    )


def summary(by_seed: Mapping[int, Sequence[Mapping[str, Any]]]) -> str:
    """The resampled replays in Markdown, one a line."""
    lines = []
    for seed, told in by_seed.items():
        watched = [facts for facts in told if facts["looked at"] is not None]
        live = [facts["measured"] for facts in watched if facts["measured"]]
        counts = [
            len(watched),
            sum(facts["drift"] is True for facts in watched),
            sum(map(reacted, watched)),
            len(live),
        ]
        last = live[-1].partition(",")[0] if live else ""
        lines.append([str(seed), *map(str, counts), last, told[-1]["champion"] or ""])
    header = ["seed", "months watched", "drift verdicts", "asked for training", "months with live"]
    return markdown([*header, "last live ROC-AUC", "champion"], lines)


def _replayed(options: argparse.Namespace, seed: int | None) -> list[Mapping[str, Any]]:
    """The real months, or those of a seed."""
    with tempfile.TemporaryDirectory() as folder:
        state, months = Path(folder), _SEEDS.absolute()
        if seed is not None:
            months = state / "months"
            resampled.write(_SEEDS, months, seed=seed)
        place = in_this_process(state)
        if options.by_worker is not None:
            place = by_worker(state, options.by_worker)
        with place as there:
            return replay(there, months, count=options.months)


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--months", type=int, default=13, help="how many; default: all 13")
    parser.add_argument(
        "--replay", choices=("real", "resampled", "both"), default="both", help="default: both"
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="how many resampled replays; default: 5"
    )
    parser.add_argument("--by-worker", type=Path, metavar="DIST", help="run the PEXes of a folder")
    options = parser.parse_args(arguments)
    wrong = []
    if options.replay != "resampled":
        real = _replayed(options, None)
        print(f"real months\n\n{table(real)}\n", flush=True)
        if not any(map(reacted, real)):
            wrong.append("the real months led to nothing")
    if options.replay != "real":
        by_seed = {seed: _replayed(options, seed) for seed in range(options.seeds)}
        print(f"resampled months, seed 0\n\n{table(by_seed[0])}\n")
        print(f"resampled months\n\n{summary(by_seed)}\n")
        wrong += [
            f"seed {seed} asked for a training in {facts['as_of']}"
            for seed, told in by_seed.items()
            for facts in filter(reacted, told)
        ]
    print(machine())
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
