"""The ingest flow: one batch of files becomes one snapshot."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from prefect import flow

from espalier.ingest import run
from espalier.orchestration import arrival, context, steps
from espalier.orchestration.artifact import publish
from espalier.project import batch_folder


@flow(name="ingest")
def ingest(
    project: str,
    as_of: date,
    source: Path | None = None,
    *,
    wait_seconds: int = 0,
    revision: bool = False,
) -> dict[str, Any]:
    """Validate a batch of files and store it as the snapshot of a day.

    Args:
        project: The ML product.
        as_of: The day on which the batch is known.
        source: The folder with the batch's files; default: the batch of that day in the data folder.
        wait_seconds: How long to wait for the batch, which is complete when an empty file _SUCCESS
            lies beside its files; 0: the files are taken as they are.
        revision: Store other content under a day that has a snapshot already.
    """
    return steps.run(
        "ingest",
        lambda: _ingest(project, as_of, source, wait_seconds=wait_seconds, revision=revision),
    )


def _ingest(
    project: str, as_of: date, source: Path | None, *, wait_seconds: int, revision: bool
) -> dict[str, Any]:
    with context.begin(project, flow="ingest") as begun:
        configured, product = begun.settings, begun.project
        if source is None:
            month = product.calendar.month(as_of)
            source = configured.data_dir / product.name / batch_folder(month)
        if wait_seconds > 0:
            arrival.wait_for(source, seconds=wait_seconds)
        stored = run.ingest(
            product,
            source=source,
            as_of=as_of,
            dsn=configured.dsn,
            reports_dir=configured.reports_dir,
            who=configured.who,
            revision=revision,
        )
        return publish(
            "ingest",
            {
                "snapshot": stored.snapshot_id,
                "as_of": stored.as_of.isoformat(),
                "status": stored.status,
                "new rows": dict(stored.rows),
                "quarantined": dict(stored.quarantined),
                "digest": stored.digest,
                "report": str(stored.report) if stored.report else None,
            },
            links={"validation": stored.report.absolute().as_uri()} if stored.report else {},
        )
