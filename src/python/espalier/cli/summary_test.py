from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from churn.project import PROJECT
from espalier.cli import summary
from espalier.cli.client import Prediction
from espalier.cli.loop import Predicted
from espalier.cli.stack import Serving, Stack
from espalier.processes import Process
from espalier.registry.download import Champion
from espalier.registry.manifest import ModelManifest
from espalier.settings import Settings

MODEL = Champion(
    "7",
    ModelManifest(
        project="churn",
        join_key="user_id",
        view="customer_monthly",
        features=PROJECT.view.features,
        feature_types=("bigint",) * len(PROJECT.view.features),
        ttl_seconds=1.0,
        threshold=0.5,
        file="model.onnx",
        digest="d",
        metrics={
            "roc_auc": 0.8342,
            "baseline_roc_auc": 0.8281,
            "pr_auc": 0.963,
            "baseline_pr_auc": 0.9609,
        },
        provenance={"validation_time": "1998-03-31"},
    ),
)
PREDICTED = Predicted(
    Prediction("00004", 1.0, 0.816, "7", "OK", datetime(1998, 6, 30, tzinfo=UTC)),
    {"user_id": "00004", "prediction": 1.0, "score": 0.816},
)
DRIFT = {
    "drift": True,
    "share": 7 / 11,
    "drifted": list(PROJECT.view.features[:7]),
    "target drift": True,
    "html": "reports/evidently/churn/1998-06-30.html",
}


def test_the_results_are_told_in_80_columns():
    text = summary.of_run(PROJECT, MODEL, PREDICTED, DRIFT, 17.4)
    assert text == (
        "churn: Will this customer buy nothing in the next 90 days?\n"
        "\n"
        "  Model      version 7, champion; on the labels of 1998-03-31, unseen:\n"
        "             ROC-AUC 0.834 (baseline 0.828), PR-AUC 0.963 (baseline 0.961)\n"
        "  Prediction user 00004: 1, score 0.8160 (gRPC); 1, score 0.8160 (HTTP)\n"
        "             1 means: buys nothing in the next 90 days\n"
        "  Drift      yes; 64% of the features moved: recency_days, tenure_days,\n"
        "             orders_total, orders_30d, orders_90d, cds_total, spend_total\n"
        "             the labels moved\n"
        "             reports/evidently/churn/1998-06-30.html\n"
        "  Time       17 s\n"
    )


def test_no_drift_and_no_labels():
    drift = {**DRIFT, "drift": False, "share": 0.0, "drifted": [], "target drift": None}
    text = summary.of_run(PROJECT, MODEL, PREDICTED, drift, 17.4)
    assert "  Drift      no; 0% of the features moved\n             reports/" in text
    still = summary.of_run(PROJECT, MODEL, PREDICTED, {**drift, "target drift": False}, 17.4)
    assert "moved\n             the labels did not move\n             reports/" in still


def test_a_path_is_never_broken():
    path = "/a/very-long/" + "folder-name/" * 9 + "1998-06-30.html"
    text = summary.of_run(PROJECT, MODEL, PREDICTED, {**DRIFT, "html": path}, 17.4)
    assert f"\n             {path}\n" in text


def test_addresses_can_be_copied_and_ask_by_the_projects_key(tmp_path: Path):
    settings = Settings(
        postgres_port=5433,
        prefect_api_url="http://127.0.0.1:4201/api",
        mlflow_tracking_uri="http://127.0.0.1:5001",
    )
    with Process("any", ["sleep", "60"], log=tmp_path / "log") as process:
        running = Stack(settings, mlflow=process, prefect=process, folder=Path("state"))
        serving = Serving(process, "127.0.0.1:50052", "127.0.0.1:8001")
        lines = summary.addresses(PROJECT, running, serving, "00004").splitlines()
    assert max(map(len, lines)) <= 80
    assert "  gRPC       127.0.0.1:50052" in lines
    assert "  MLflow     http://127.0.0.1:5001" in lines
    assert "  Prefect    http://127.0.0.1:4201" in lines
    assert "  PostgreSQL 127.0.0.1:5433, user espalier, database espalier," in lines
    assert "             password in state/postgres/espalier.password" in lines
    assert lines[-1] == """      -d '{"user_id": "00004"}' http://127.0.0.1:8001/predict"""


def test_next_steps_fit():
    assert max(map(len, summary.next_steps("churn").splitlines())) <= 80
