from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from churn.project import PROJECT
from espalier.cli import summary
from espalier.cli.client import Prediction
from espalier.cli.loop import Predicted
from espalier.cli.stack import Serving, Stack
from espalier.contract import ColumnType
from espalier.policies import Gate, Validation
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


def of_task(kind, classes, metrics, predicted, drift):
    """What is told of another kind of product, of one snapshot."""
    labels = PROJECT.table(PROJECT.label.table)
    columns = tuple(
        replace(column, type=kind) if column.name == PROJECT.label.column else column
        for column in labels.columns
    )
    project = replace(
        PROJECT,
        tables=(*PROJECT.tables[:-1], replace(labels, columns=columns)),
        label=replace(PROJECT.label, classes=classes, horizon=timedelta(0)),
        gate=Gate(),
        validation=Validation(by="entity"),
    )
    manifest = replace(MODEL.manifest, task=project.task.value, classes=classes, metrics=metrics)
    return summary.of_run(project, Champion("7", manifest), predicted, drift, 17.4)


NOTHING = {
    "drift": None,
    "nothing to compare": "the features of 1998-06-30 are those that the model was trained on; "
    "none are newer",
    "html": "reports/evidently/churn/1998-06-30.html",
}


def test_classes_and_nothing_to_compare():
    answer = {"user_id": "00004", "prediction": 2, "score": 0.9712, "label": "c"}
    text = of_task(
        ColumnType.TEXT,
        ("a", "b", "c"),
        {
            "roc_auc": 0.99,
            "baseline_roc_auc": 0.5,
            "accuracy": 0.95,
            "baseline_accuracy": 0.4,
        },
        Predicted(replace(PREDICTED.grpc, prediction=2.0, score=0.9712), answer),
        NOTHING,
    )
    assert text.splitlines()[2:-1] == [
        "  Model      version 7, champion; on 25% of the entities, unseen:",
        "             ROC-AUC 0.990 (baseline 0.500), accuracy 0.950 (baseline 0.400)",
        "  Prediction user 00004: c, probability 0.9712 (gRPC); c, probability 0.9712",
        "             (HTTP)",
        "  Drift      nothing to compare: the features of 1998-06-30 are those that the",
        "             model was trained on; none are newer",
        "             reports/evidently/churn/1998-06-30.html",
    ]


def test_numbers_and_too_few_rows():
    text = of_task(
        ColumnType.DOUBLE,
        (),
        {"r2": 0.481, "baseline_r2": -0.01, "rmse": 54321.1, "baseline_rmse": 77.123},
        Predicted(
            replace(PREDICTED.grpc, prediction=151.25, score=151.25),
            {"user_id": "00004", "prediction": 151.25, "score": 151.25},
        ),
        {"drift": None, "nothing to compare": "178 reference rows are too few"},
    )
    assert text.splitlines()[3:-1] == [
        "             R² 0.481 (baseline -0.010), RMSE 5.432e+04 (baseline 77.12)",
        "  Prediction user 00004: 151.25 (gRPC); 151.25 (HTTP)",
        "  Drift      nothing to compare: 178 reference rows are too few",
    ]


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
    text = summary.next_steps(PROJECT, named=False)
    assert max(map(len, text.splitlines())) <= 80
    assert "  ./pants quickstart --full " in text


def test_next_steps_name_a_product_that_is_not_the_first_and_offer_what_it_has():
    named = replace(PROJECT, name="a_long_name_of_a_product", full_data=None)
    text = summary.next_steps(named, named=True)
    assert max(map(len, text.splitlines())) <= 80
    assert "  ./pants quickstart --project a_long_name_of_a_product --keep   leave" in text
    assert "--full" not in text
