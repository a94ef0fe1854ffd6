"""The months of the churn product, one after the other, through the loop flow: what it did in each.

Each replay has a PostgreSQL and an MLflow of its own. After a month's loop its champion predicts for
every customer into the prediction log, dated an hour into that day, as a server would have; so live
performance comes three months later, with the labels. A month's row tells what the loop saw, decided
and did. In the second replay every month is a sample of the first month's customers, so that nothing
changes but chance.

Each month's loop is run twice; that the second run changes nothing is checked.

    ./pants run benchmarks/replay_benchmark.py
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np

import resampled
from churn.project import PROJECT
from espalier import settings
from espalier.features import point_in_time
from espalier.orchestration.flows.loop import loop
from espalier.postgres import embedded
from espalier.postgres.connect import Connection, connect
from espalier.postgres.migrate import migrate
from espalier.registry import mlflow_server
from espalier.registry.download import current_version, fetch_version
from espalier.serving.loading import open_scorer
from measure import machine, markdown

_SEEDS = Path("data/seeds/churn")
_HEADER = ["month", "drift", "live ROC-AUC", "decision", "why", "gate", "champion"]
# What one loop leaves, by table; a second one must add nothing.
_COUNTED = ("snapshots", "drift", "live_performance", "actions", "ledger")


def replay(months: Path, state: Path, *, count: int) -> list[dict[str, Any]]:
    """What the loop told of each month.

    Args:
        months: The folder with month_000 and so on.
        state: A folder for MLflow's files and reports.
        count: How many months.

    Raises:
        RuntimeError: a second loop of a month changed something.
    """
    told = []
    with embedded.temporary() as server:
        with connect(server.dsn()) as connection:
            migrate(connection)
        embedded.create_database(server, "mlflow")
        log = state / "mlflow.log"
        with mlflow_server.serve(server.dsn("mlflow"), state / "artifacts", log=log) as uri:
            here = replace(
                settings.Settings(),
                postgres_host=server.host,
                postgres_port=server.port,
                postgres_user=server.user,
                postgres_password=server.password,
                mlflow_tracking_uri=uri,
                reports_dir=state / "reports",
                actor="replay",
            )
            # Flows read their settings from the environment.
            os.environ.update(here.environment())
            for number in range(count):
                day = PROJECT.calendar.as_of(number)
                told.append(_month(day, months / f"month_{number:03}", server.dsn(), uri))
    return told


def _month(day: date, source: Path, dsn: str, uri: str) -> dict[str, Any]:
    facts = loop.fn(PROJECT.name, day, source)
    with connect(dsn) as connection:
        left = _counts(connection)
        again = loop.fn(PROJECT.name, day, source)
        if _counts(connection) != left or {**again, "ingest": facts["ingest"]} != facts:
            raise RuntimeError(f"a second loop of {day} changed something: {facts} {again}")
        facts["measured"] = _measured(connection, day)
        _serve(connection, day, uri)
    print(f"{day}: {facts['decision']}, {facts['why']}", file=sys.stderr)
    return facts


def _counts(connection: Connection) -> dict[str, int]:
    connection.rollback()
    found = {}
    for name in _COUNTED:
        row = connection.execute(f"SELECT count(*) FROM espalier.{name}").fetchone()  # noqa: S608
        assert row is not None, "an aggregate gives a row"
        found[name] = row[0]
    return found


def _measured(connection: Connection, day: date) -> str:
    """The newest live ROC-AUC known on that day, and whose it is."""
    found = connection.execute(
        "SELECT value, low, high, model_version, label_time FROM espalier.live_performance_latest "
        "WHERE project = %s AND metric = 'roc_auc' AND role = 'champion' AND label_time <= %s "
        "ORDER BY label_time DESC LIMIT 1",
        [PROJECT.name, day - PROJECT.label.horizon],
    ).fetchone()
    if found is None:
        return ""
    value, low, high, version, label_time = found
    return f"{value:.3f} ({low:.3f} to {high:.3f}), version {version} on {label_time}"


def _serve(connection: Connection, day: date, uri: str) -> None:
    """Predict for everyone into the prediction log, as on that day."""
    if current_version(uri, PROJECT.name) is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        model = fetch_version(uri, PROJECT.name, "champion", Path(folder))
        rows = point_in_time.features_at(connection, PROJECT, when=day)
        names = list(model.manifest.features)
        values = rows[names].to_numpy(dtype=np.float64)
        scores = open_scorer(model.path, len(names)).run(values)
    at = datetime.combine(day, time(), tzinfo=UTC) + timedelta(hours=1)
    copy = (
        "COPY espalier.predictions (served_at, project, model_version, entity_id, score, "
        "prediction, feature_time, features) FROM STDIN"
    )
    with connection.cursor() as cursor, cursor.copy(copy) as stream:
        for entity, when, score, vector in zip(
            rows[PROJECT.entity.join_key], rows["feature_time"], scores, values, strict=True
        ):
            decided = float(score >= model.manifest.threshold)
            stream.write_row(
                (at, PROJECT.name, model.version, entity, float(score), decided, when, list(vector))
            )
    connection.commit()


def table(told: Sequence[dict[str, Any]]) -> str:
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--months", type=int, default=13, help="how many; default: all 13")
    parser.add_argument(
        "--replay", choices=("real", "resampled", "both"), default="both", help="default: both"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resampled months")
    options = parser.parse_args(arguments)
    for name in ("real", "resampled"):
        if options.replay not in (name, "both"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            state, months = Path(folder), _SEEDS.absolute()
            if name == "resampled":
                months = state / "months"
                resampled.write(_SEEDS, months, seed=options.seed)
            found = replay(months, state, count=options.months)
        print(f"{name} months\n\n{table(found)}\n")
    print(machine())


if __name__ == "__main__":
    main()
