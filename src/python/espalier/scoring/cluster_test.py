"""Batch scoring on a Dask cluster of processes, one of which dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

from espalier.errors import ScoreInvalid
from espalier.postgres.connect import connect
from espalier.registry.download import FetchedModel
from espalier.scoring.progress import Progress
from espalier.scoring.score import POSTGRESQL, Scored, score_with
from espalier.scoring.testing import JUNE, SHOP, SHOPS, facts, save


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
    class Kills(Progress):
        killed = 0

        def part(self, rows: int) -> None:
            super().part(rows)
            if not Kills.killed:
                with Client(cluster.scheduler_address, set_as_default=False) as client:
                    Kills.killed = next(iter(client.run(os.getpid).values()))
                os.kill(Kills.killed, signal.SIGKILL)

    done = run(model, dsn, POSTGRESQL, cluster, partitions=60, progress=Kills())
    assert Kills.killed
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
