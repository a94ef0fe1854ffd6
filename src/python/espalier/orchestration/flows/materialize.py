"""The materialize flow: the newest known features go to the online store."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any

from prefect import flow

from espalier.features import feast_store
from espalier.orchestration import context, steps
from espalier.orchestration.artifact import publish


@flow(name="materialize")
def materialize(project: str, as_of: date) -> dict[str, Any]:
    """Register the project's features with Feast and load them into the online store.

    Args:
        project: The ML product.
        as_of: The day whose knowledge is loaded.
    """
    return steps.run("materialize", lambda: _materialize(project, as_of))


def _materialize(project: str, as_of: date) -> dict[str, Any]:
    with context.begin(project, flow="materialize") as begun:
        configured, product = begun.settings, begun.project
        feast_store.apply(product, dsn=configured.dsn)
        end = datetime.combine(as_of, time(), tzinfo=UTC)
        done = feast_store.materialize(product, dsn=configured.dsn, end=end)
        return publish(
            "materialize",
            {
                "entities": done.rows,
                "seconds": round(done.seconds, 3),
                "newest": done.newest.isoformat() if done.newest else None,
            },
        )
