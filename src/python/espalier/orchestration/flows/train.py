"""The train flow: a snapshot becomes a model version, and the champion if the gate says so."""

from __future__ import annotations

from datetime import date
from typing import Any

from prefect import flow

from espalier.orchestration import context
from espalier.orchestration.artifact import publish
from espalier.training import train as training


@flow(name="train")
def train(project: str, as_of: date) -> dict[str, Any]:
    """Train on what was known on a day, register the model, and promote it if the gate allows.

    Args:
        project: The ML product.
        as_of: The day whose knowledge is trained on.
    """
    with context.begin(project) as begun:
        configured, product = begun.settings, begun.project
        trained = training.train(
            product,
            as_of=as_of,
            dsn=configured.dsn,
            tracking_uri=configured.mlflow_tracking_uri,
            who=configured.who,
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
            },
            passed=trained.promoted,
        )
