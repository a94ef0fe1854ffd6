"""The score flow: one prediction for every entity, as files."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from prefect import flow

from espalier.orchestration import context
from espalier.orchestration.artifact import publish
from espalier.registry.download import current_version
from espalier.scoring import score as scoring


@flow(name="score")
def score(
    project: str, as_of: date, output: Path | None = None, partitions: int = 4
) -> dict[str, Any]:
    """Predict for every entity known on a day, with the champion.

    Args:
        project: The ML product.
        as_of: The day whose features are scored.
        output: The folder for Parquet files; default: scores/<project>/<as_of>-v<version> in the
            reports folder. A run that was interrupted is resumed there.
        partitions: Into how many parts the entities are split.
    """
    with context.begin(project) as begun:
        configured, product = begun.settings, begun.project
        if output is None:
            version = current_version(configured.mlflow_tracking_uri, product.name)
            output = configured.reports_dir / "scores" / product.name / f"{as_of}-v{version}"
        done = scoring.score(
            product,
            as_of=as_of,
            dsn=configured.dsn,
            tracking_uri=configured.mlflow_tracking_uri,
            output=output,
            partitions=partitions,
        )
        return publish(
            "score", {"rows": done.rows, "version": done.version, "output": str(done.output)}
        )
