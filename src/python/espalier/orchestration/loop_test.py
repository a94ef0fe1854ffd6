"""The loop before there is enough to train on; benchmarks/replay_benchmark.py plays all months."""

from __future__ import annotations

import pytest

from espalier.orchestration.conftest import Programs
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.registry import mlflow_server

AS_OF = "--as-of=1997-06-30"


@pytest.fixture(scope="module")
def mlflow(server: embedded.Server, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("mlflow")
    embedded.create_database(server, "mlflow")
    log = folder / "mlflow.log"
    with mlflow_server.serve(server.dsn("mlflow"), folder / "artifacts", log=log) as uri:
        yield uri


def test_run_twice_nothing_doubles(
    programs: Programs, server: embedded.Server, database: str, mlflow: str
) -> None:
    first = programs.run(AS_OF, flow="loop", MLFLOW_TRACKING_URI=mlflow)
    assert (first.code, first.err) == (0, "")
    assert first.facts["ingest"] == "stored"
    assert (first.facts["decision"], first.facts["why"]) == ("train", "there is no model yet")
    assert first.facts["outcome"] == "impossible"
    assert "too few months to train" in first.facts["gate"]
    before = rows(server.dsn(database))
    again = programs.run(AS_OF, flow="loop", MLFLOW_TRACKING_URI=mlflow)
    assert again.code == 0
    assert again.facts == {**first.facts, "ingest": "unchanged"}
    assert rows(server.dsn(database)) == before


def test_a_run_that_was_cut_short_is_taken_up(
    programs: Programs, server: embedded.Server, database: str, mlflow: str
) -> None:
    # MLflow is needed first when it is to be known which model serves.
    away = programs.run(AS_OF, flow="loop", MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    assert away.code == 3
    assert away.reason.startswith("MLflow at http://127.0.0.1:1: ")
    done = programs.run(AS_OF, flow="loop", MLFLOW_TRACKING_URI=mlflow)
    assert done.code == 0
    assert (done.facts["ingest"], done.facts["outcome"]) == ("unchanged", "impossible")
    # As when it was killed between the decision and the end of the training.
    with connect(server.dsn(database)) as connection:
        connection.execute(
            "UPDATE espalier.actions SET outcome = NULL, outcome_why = NULL, finished_at = NULL"
        )
    again = programs.run(AS_OF, flow="loop", MLFLOW_TRACKING_URI=mlflow)
    assert again.facts == done.facts


def rows(dsn: str) -> list[object]:
    with connect(dsn) as connection:
        return [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            for table in (
                *("espalier.snapshots", "espalier.actions", "espalier.ledger", "espalier.drift"),
                *("churn.users", "churn.features", "churn.labels", "online.churn_customer_monthly"),
            )
        ]
