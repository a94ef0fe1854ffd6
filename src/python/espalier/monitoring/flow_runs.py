"""Which runs of flows ended, when and how: what the exporter tells of flows."""

from __future__ import annotations

from datetime import UTC, datetime

from espalier.postgres.connect import connect

_LONGEST_DETAIL = 1000


def record_flow(
    dsn: str, *, project: str, flow: str, state: str, started_at: datetime, detail: str = ""
) -> None:
    """Record that a run ended just now.

    Args:
        dsn: PostgreSQL.
        project: The ML product.
        flow: The flow's name, such as `train`.
        state: "completed"; "refused" when the flow did its work and its gate or check said no;
            "failed" by an error, "cancelled" by a signal.
        started_at: When it began, with a time zone.
        detail: What it says of itself, such as the error's line.

    Raises:
        DependencyUnreachable: PostgreSQL does not answer.
    """
    now = datetime.now(UTC)
    with connect(dsn) as connection:
        connection.execute(
            "INSERT INTO espalier.flow_runs (project, flow, state, started_at, ended_at, detail) "
            "VALUES (%s, %s, %s, %s, greatest(%s, %s), %s)",
            [project, flow, state, started_at, started_at, now, detail[:_LONGEST_DETAIL]],
        )
