"""The train flow: a snapshot becomes a model version, and the champion if the gate says so."""

from __future__ import annotations

from datetime import date
from typing import Any

from prefect import flow

from espalier.orchestration import context, steps
from espalier.orchestration.artifact import publish
from espalier.registry.rest import MlflowRest
from espalier.training import train as training


@flow(name="train")
def train(project: str, as_of: date, asked_by: str | None = None) -> dict[str, Any]:
    """Train on what was known on a day, register the model, and promote it if the gate allows.

    Args:
        project: The ML product.
        as_of: The day whose knowledge is trained on.
        asked_by: Names what asks for it; what was trained under this name is not trained again.
            Default: the flow run, so that a step that is tried again registers no second version.
    """
    name = asked_by or steps.flow_run()
    return steps.run("train", lambda: _train(project, as_of, name))


def _train(project: str, as_of: date, asked_by: str) -> dict[str, Any]:
    with context.begin(project, flow="train") as begun:
        configured, product = begun.settings, begun.project
        trained = training.train(
            product,
            as_of=as_of,
            dsn=configured.dsn,
            tracking_uri=configured.mlflow_tracking_uri,
            who=configured.who,
            program=begun.program(),
            asked_by=asked_by,
        )
        return publish(
            "train",
            {
                "version": trained.version,
                "run": trained.run_id,
                "promoted": trained.promoted,
                "reason": trained.reason,
                "rows": trained.rows,
                "validated on": trained.validation_time.isoformat(),
                "metrics": dict(trained.metrics),
                "baseline": dict(trained.baseline),
                "format": trained.format,
                # The gate's checks, each with its verdict and reason.
                **{f"gate: {check.name}": check.told() for check in trained.checks},
            },
            passed=trained.promoted,
            links={"MLflow": _page(configured.mlflow_tracking_uri, trained.run_id)},
        )


def _page(tracking_uri: str, run_id: str) -> str:
    """The run's page in MLflow."""
    with MlflowRest(tracking_uri) as mlflow:
        run = mlflow.get("runs/get", {"run_id": run_id}) or {}
    experiment = run.get("run", {}).get("info", {}).get("experiment_id", "0")
    return f"{tracking_uri}/#/experiments/{experiment}/runs/{run_id}"
