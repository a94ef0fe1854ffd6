"""The monitor flow: have the features moved away from what the model was trained on?"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect import flow

from espalier.monitoring import drift
from espalier.orchestration import context
from espalier.orchestration.artifact import publish
from espalier.registry.download import fetch_version
from espalier.registry.manifest import CHAMPION


@flow(name="monitor")
def monitor(project: str, as_of: date) -> dict[str, Any]:
    """Compare the features of a day with those the champion was trained on.

    Args:
        project: The ML product.
        as_of: The day whose features are looked at.
    """
    with context.begin(project) as begun:
        configured, product = begun.settings, begun.project
        with TemporaryDirectory() as scratch:
            champion = fetch_version(
                configured.mlflow_tracking_uri, product.name, CHAMPION, Path(scratch)
            )
        found = drift.check_drift(
            product,
            as_of=as_of,
            dsn=configured.dsn,
            reports_dir=configured.reports_dir,
            model_version=champion.version,
            trained_as_of=date.fromisoformat(champion.manifest.provenance["as_of"]),
        )
        return publish(
            "monitor",
            {
                "drift": found.verdict,
                "share": found.share,
                "drifted": list(found.drifted),
                "target drift": found.target.drifted if found.target else None,
                "html": str(found.html),
                "json": str(found.json),
            },
            passed=not found.verdict,
        )
