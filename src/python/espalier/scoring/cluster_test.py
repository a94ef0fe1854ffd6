"""Batch scoring on Dask clusters of processes, of which one dies."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

from espalier.errors import ScoreInvalid
from espalier.postgres.connect import connect
from espalier.processes import Process, python_environment, reserved_port
from espalier.registry.download import FetchedModel
from espalier.scoring.progress import Progress
from espalier.scoring.score import POSTGRESQL, Scored, score_with
from espalier.scoring.testing import JUNE, SHOP, SHOPS, facts, save


class Kills(Progress):
    """Kills a worker when so many parts are done."""

    def __init__(self, address: str, *, after: int) -> None:
        super().__init__()
        self._address, self._after, self.killed = address, after, 0

    def part(self, rows: int) -> None:
        super().part(rows)
        if not self.killed and self._parts >= self._after:
            with Client(self._address, set_as_default=False) as client:
                self.killed = next(iter(client.run(os.getpid).values()))
            os.kill(self.killed, signal.SIGKILL)


@pytest.fixture
def cluster():
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
    ) as running:
        yield running


def run(
    model: FetchedModel, dsn: str, output: Any, cluster: LocalCluster, **options: Any
) -> Scored:
    return score_with(
        model,
        SHOP,
        as_of=JUNE,
        dsn=dsn,
        output=output,
        scheduler=cluster.scheduler_address,
        **{"partitions": 6, **options},
    )


def test_two_workers_and_one_that_dies(
    dsn: str, model: FetchedModel, cluster: LocalCluster, tmp_path: Path
) -> None:
    kills = Kills(cluster.scheduler_address, after=1)
    done = run(model, dsn, POSTGRESQL, cluster, partitions=60, progress=kills)
    assert kills.killed
    assert done.rows == SHOPS
    assert done.written > 40
    with connect(dsn) as connection:
        rows = connection.execute(
            "SELECT entity_id FROM espalier.scores_latest ORDER BY 1"
        ).fetchall()
    assert [row[0] for row in rows] == list(facts(JUNE)["shop_id"])

    # The same as on this machine alone, and into files.
    run(model, dsn, tmp_path / "cluster", cluster)
    score_with(model, SHOP, as_of=JUNE, dsn=dsn, output=tmp_path / "here", partitions=6)
    assert pq.read_table(tmp_path / "cluster").equals(pq.read_table(tmp_path / "here"))


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[str]:
    """The address of a scheduler with two workers, each started as a program of its own.

    As on several machines, and nobody starts a worker again that died.
    """

    def program(name: str, module: str, *arguments: str) -> Process:
        return Process(
            name,
            [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
            log=tmp_path / f"{name}.log",
            env=python_environment(),
        )

    def ready() -> bool:
        try:
            with Client(address, timeout=2, set_as_default=False) as client:
                return len(client.scheduler_info()["workers"]) == 2
        except (OSError, TimeoutError):
            return False

    with reserved_port() as port, ExitStack() as stack:
        address = f"tcp://127.0.0.1:{port}"
        scheduler = stack.enter_context(
            program(
                *("scheduler", "dask_scheduler", "--host", "127.0.0.1"),
                *("--port", str(port), "--no-dashboard", "--no-show"),
            )
        )
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard")
        folder = ("--local-directory", str(tmp_path / "workers"))
        for name in ("one", "other"):
            stack.enter_context(program(name, "dask_worker", address, *options, *folder))
        scheduler.wait_until(ready, seconds=120)
        yield address


@pytest.mark.parametrize("output", [POSTGRESQL, "files"])
def test_a_cluster_by_address_that_loses_a_worker(
    dsn: str, model: FetchedModel, programs: str, tmp_path: Path, output: str
) -> None:
    kills = Kills(programs, after=20)
    to = POSTGRESQL if output == POSTGRESQL else tmp_path / output
    other = FetchedModel("shop", "7", model.folder, model.manifest)
    done = score_with(
        other,
        SHOP,
        as_of=JUNE,
        dsn=dsn,
        output=to,
        partitions=60,
        scheduler=programs,
        progress=kills,
    )
    assert kills.killed
    assert done.rows == SHOPS
    if output == POSTGRESQL:
        with connect(dsn) as connection:
            rows = connection.execute(
                "SELECT entity_id FROM espalier.scores_latest WHERE model_version = '7' ORDER BY 1"
            ).fetchall()
        found = [row[0] for row in rows]
    else:
        found = pq.read_table(to)["shop_id"].to_pylist()
    assert found == list(facts(JUNE)["shop_id"])


def test_an_error_of_a_worker_is_ours(
    dsn: str, model: FetchedModel, cluster: LocalCluster, tmp_path: Path
) -> None:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["nothing"], value_float=float("nan")),
            helper.make_node("Mul", ["features", "nothing"], ["probabilities"]),
        ],
        "nonsense",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 3])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    nonsense = save(tmp_path, made.SerializeToString(), "6")
    with pytest.raises(ScoreInvalid, match="scores are not in 0 to 1"):
        run(nonsense, dsn, tmp_path / "out", cluster)
    assert not list((tmp_path / "out").glob("*"))
