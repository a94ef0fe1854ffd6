"""The score flow: one prediction for every entity, as files or in PostgreSQL."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from prefect import flow

from espalier.orchestration import context, steps
from espalier.orchestration.artifact import publish, version_page
from espalier.registry.download import current_version
from espalier.scoring import score as scoring
from espalier.scoring.progress import Progress


@flow(name="score")
def score(
    project: str,
    as_of: date,
    output: str | None = None,
    *,
    partitions: int = 16,
    scheduler: str = "threads",
    workers: int | None = None,
) -> dict[str, Any]:
    """Predict for every entity known on a day, with the champion.

    Args:
        project: The ML product.
        as_of: The day whose features are scored.
        output: A folder or URL for Parquet files, or "postgresql" for a partition of
            espalier.scores; default: scores/<project>/<as_of>-v<version> in the reports folder. A
            run that was interrupted is resumed there.
        partitions: Into how many parts the entities are split.
        scheduler: "threads", "processes", "synchronous", or the address of a Dask cluster's
            scheduler.
        workers: How many threads or processes of this machine; default: as many as cores.
    """
    return steps.run(
        "score",
        lambda: _score(
            project, as_of, output, partitions=partitions, scheduler=scheduler, workers=workers
        ),
    )


def _score(
    project: str,
    as_of: date,
    output: str | None,
    *,
    partitions: int,
    scheduler: str,
    workers: int | None,
) -> dict[str, Any]:
    with context.begin(project, flow="score") as begun:
        configured, product = begun.settings, begun.project
        if output is None:
            version = current_version(configured.mlflow_tracking_uri, product.name)
            folder = configured.reports_dir / "scores" / product.name / f"{as_of}-v{version}"
            output = str(folder)
        done = scoring.score(
            product,
            as_of=as_of,
            dsn=configured.dsn,
            tracking_uri=configured.mlflow_tracking_uri,
            output=output,
            partitions=partitions,
            scheduler=scheduler,
            workers=workers,
            progress=Progress(),
        )
        return publish(
            "score",
            {
                "rows": done.rows,
                "version": done.version,
                "output": done.output,
                "parts written": done.written,
                "parts kept": done.kept,
            },
            links={
                **_address(done.output),
                "model": version_page(configured.mlflow_tracking_uri, product.name, done.version),
            },
        )


def _address(output: str) -> dict[str, str]:
    """Where the predictions are, if that is a place to go to."""
    if "://" in output:
        return {"predictions": output}
    folder = Path(output).absolute()
    return {"predictions": folder.as_uri()} if folder.is_dir() else {}
