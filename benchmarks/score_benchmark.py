"""Everyone scored as of a day: ours on Dask, and a plain pandas and scikit-learn loop.

The churn product's own features of generated customers (see `generate`) on three month ends stand
in PostgreSQL, and the product's own estimator is trained on customers of the same kind. Sides:

- plain: `pandas.read_sql` of the same rows in chunks, `predict_proba`, `to_parquet`;
- one process: `score` with threads, into Parquet;
- two workers: a Dask cluster of two processes with one thread each, into Parquet;
- two workers, PostgreSQL: the same by COPY into a partition;
- one worker killed: the same by SIGKILL of one when a third of the parts is done.

Starting the cluster, with the imports of its workers, is not part of its sides. scikit-learn may use
all cores in the plain loop. After each round the scores are counted: nobody is missing or there
twice, and all sides give the same scores to 1e-5.

    ./pants run benchmarks/score_benchmark.py -- --rows 1000000
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from distributed import Client, LocalCluster
from sqlalchemy import create_engine

from churn.estimator import build
from churn.project import PROJECT
from churn_tables import fill
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.registry.download import FetchedModel
from espalier.registry.manifest import MANIFEST, ONNX, ModelManifest
from espalier.scoring.progress import Progress
from espalier.scoring.score import POSTGRESQL, score_with
from espalier.training.onnx_export import finite_row, to_onnx
from generate import chunks, features_of, labels_of
from measure import machine, rounds, table

MONTHS = (date(1997, 8, 31), date(1997, 9, 30), date(1997, 10, 31))
AS_OF = MONTHS[-1]
_TRAINED_ON = 20_000
_CHUNK = 50_000
_FEATURES = list(PROJECT.view.features)
# What `features_at` asks, as somebody would write it for pandas.
_QUERY = (
    f"SELECT DISTINCT ON (user_id) user_id, feature_date, {', '.join(_FEATURES)} "  # noqa: S608  # our own names
    "FROM churn.features WHERE feature_date <= '1997-10-31' AND feature_date >= '1997-09-16' "
    "AND known_at <= '1997-10-31 00:00:00Z' "
    "ORDER BY user_id, feature_date DESC, known_at DESC, snapshot_id DESC"
)


class Kills(Progress):
    """Kills a worker of a cluster when a third of the parts is done."""

    def __init__(self, address: str) -> None:
        """Of the cluster at `address`."""
        super().__init__(stream=io.StringIO())
        self._address, self._killed = address, False

    def part(self, rows: int) -> None:
        """One more part is written."""
        super().part(rows)
        if not self._killed and self._parts >= self._wanted // 3:
            self._killed = True
            with Client(self._address, set_as_default=False) as client:
                victim = next(iter(client.run(os.getpid).values()))
            os.kill(victim, signal.SIGKILL)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    print(f"{machine()}\n")
    with tempfile.TemporaryDirectory() as scratch, embedded.temporary() as server:
        folder = Path(scratch)
        dsn = server.dsn()
        fill(dsn, options.rows, MONTHS)
        estimator, model = _trained(folder)
        _measure(options, dsn, folder, estimator, model)


def _measure(
    options: argparse.Namespace, dsn: str, folder: Path, estimator: Any, model: FetchedModel
) -> None:
    output = folder / "scores"

    def ours(to: str, scheduler: str, progress: Progress | None = None) -> int:
        return score_with(
            model,
            PROJECT,
            as_of=AS_OF,
            dsn=dsn,
            output=to,
            partitions=options.partitions,
            scheduler=scheduler,
            progress=progress,
        ).rows

    with _cluster() as two, _cluster() as dying:
        sides: dict[str, Callable[[], int]] = {
            "plain": lambda: _plain(dsn, estimator, output),
            "one process": lambda: ours(str(output), "threads"),
            "two workers": lambda: ours(str(output), two.scheduler_address),
            "two workers, PostgreSQL": lambda: ours(POSTGRESQL, two.scheduler_address),
            "one worker killed": lambda: ours(
                str(output), dying.scheduler_address, Kills(dying.scheduler_address)
            ),
        }
        expected: list[pa.Table] = []

        def checked(name: str, side: Callable[[], int]) -> Callable[[], int]:
            def run() -> int:
                rows = side()
                if rows != options.rows:
                    raise SystemExit(f"{name}: {rows} rows of {options.rows}")
                return rows

            return run

        def clean(name: str) -> Callable[[], None]:
            def run() -> None:
                # What the side before left is looked at outside of the time.
                if (found := _scores(dsn, output)) is not None:
                    expected.append(found)
                    _same(expected[0], found)
                shutil.rmtree(output, ignore_errors=True)
                _forget(dsn)
                if name == "one worker killed":
                    # The nanny of the last round's victim starts another.
                    with Client(dying.scheduler_address, set_as_default=False) as client:
                        client.wait_for_workers(2)

            return run

        timings = rounds(
            {name: checked(name, side) for name, side in sides.items()},
            options.rounds,
            prepare={name: clean(name) for name in sides},
        )
        clean("")()
    print(table(timings, rows=options.rows, against="plain"))
    plain = timings["plain"].median
    told = ", ".join(
        f"{name} {plain / timings[name].median:.1f}" for name in ("one process", "two workers")
    )
    print(
        f"\n{options.partitions} parts; scores of {len(expected)} runs compared: each customer "
        f"once, and the same everywhere. Times as fast as the plain loop: {told}."
    )


@contextmanager
def _cluster() -> Iterator[LocalCluster]:
    """Two workers that have imported what they need."""
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=50,
        ) as cluster,
    ):
        with Client(cluster.scheduler_address, set_as_default=False) as client:
            for name in ("espalier.scoring.work", "espalier.scoring.score", "onnxruntime"):
                client.run(import_module, name)
        yield cluster


def _plain(dsn: str, estimator: Any, output: Path) -> int:
    """What one writes first."""
    output.mkdir()
    engine = create_engine(dsn.replace("postgresql://", "postgresql+psycopg://", 1))
    rows = 0
    with engine.connect().execution_options(stream_results=True) as connection:
        for number, chunk in enumerate(pd.read_sql(_QUERY, connection, chunksize=_CHUNK)):
            scores = estimator.predict_proba(chunk[_FEATURES].to_numpy(dtype=float))[:, 1]
            done = pd.DataFrame(
                {
                    "user_id": chunk["user_id"],
                    "score": scores,
                    "prediction": (scores >= 0.5).astype(float),
                    "model_version": "1",
                    "feature_time": pd.to_datetime(chunk["feature_date"], utc=True),
                }
            )
            done.to_parquet(output / f"part-{number:05}.parquet", compression="zstd")
            rows += len(chunk)
    engine.dispose()
    return rows


def _scores(dsn: str, output: Path) -> pa.Table | None:
    """Key and score of everyone, sorted; None when there is nothing yet."""
    if output.exists():
        found = pq.read_table(output, columns=["user_id", "score"])
    else:
        with connect(dsn) as connection, connection.cursor() as cursor:
            buffer = io.BytesIO()
            copy = "COPY (SELECT entity_id AS user_id, score FROM espalier.scores_latest) TO STDOUT"
            with cursor.copy(copy + " (FORMAT csv, HEADER)") as stream:
                for data in stream:
                    buffer.write(data)
        buffer.seek(0)
        types = pyarrow.csv.ConvertOptions(
            column_types={"user_id": pa.string(), "score": pa.float64()}
        )
        found = pyarrow.csv.read_csv(buffer, convert_options=types)
    return found.sort_by("user_id") if len(found) else None


def _same(expected: pa.Table, found: pa.Table) -> None:
    if pc.count_distinct(found["user_id"]).as_py() != len(found):
        raise SystemExit("a customer is there twice")
    if not found["user_id"].combine_chunks().equals(expected["user_id"].combine_chunks()):
        raise SystemExit("a customer is missing")
    worst = np.abs(found["score"].to_numpy() - expected["score"].to_numpy()).max()
    if worst > 1e-5:
        raise SystemExit(f"a score differs by {worst}")


def _forget(dsn: str) -> None:
    """No run into PostgreSQL has been."""
    with connect(dsn) as connection:
        for (run_id,) in connection.execute("SELECT id FROM espalier.score_runs").fetchall():
            connection.execute(f"DROP TABLE IF EXISTS espalier.scores_{run_id}")
        connection.execute("TRUNCATE espalier.score_runs, espalier.score_parts")


def _trained(folder: Path) -> tuple[Any, FetchedModel]:
    """The product's estimator on other customers of the same kind, and as ONNX."""
    days = (AS_OF - date(1997, 1, 1)).days + 91
    orders = next(iter(chunks(customers=_TRAINED_ON, days=days, seed=2)))
    rows = features_of(orders, MONTHS[0]).to_pandas()
    labels = labels_of(orders, MONTHS[0]).to_pandas()
    joined = rows.merge(labels, on="user_id")
    features = joined[_FEATURES].to_numpy(dtype=float)
    closed = joined["label_value"].astype(str).str.lower().eq("true").to_numpy()
    estimator = build(seed=0).fit(features, closed)
    content = to_onnx(estimator, finite_row(features), name="churn")
    manifest = ModelManifest(
        project="churn",
        join_key="user_id",
        view=PROJECT.view.name,
        features=PROJECT.view.features,
        feature_types=("double precision",) * len(_FEATURES),
        ttl_seconds=PROJECT.view.ttl.total_seconds(),
        threshold=0.5,
        file=ONNX,
        digest=hashlib.sha256(content).hexdigest(),
    )
    (folder / ONNX).write_bytes(content)
    (folder / MANIFEST).write_text(manifest.to_json())
    return estimator, FetchedModel("churn", "1", folder, manifest)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="customers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=16, help="as the flow")
    return parser


if __name__ == "__main__":
    main()
