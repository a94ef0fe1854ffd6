"""What a flow did, as its result and as a table in Prefect's UI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def publish(flow: str, facts: Mapping[str, Any], *, passed: bool = True) -> dict[str, Any]:
    """Give back the facts; inside a Prefect flow run also store them as its artifact.

    Args:
        flow: The flow's name, from which the artifact has its key.
        facts: What was done, by name, as values that JSON knows.
        passed: Whether the flow's gate or check, if it has one, said yes; a command line that
            ends with a no has exit code 1.
    """
    from prefect.artifacts import create_table_artifact
    from prefect.context import FlowRunContext

    told = {**facts, "passed": passed}
    if FlowRunContext.get() is not None:
        rows = [{"fact": name, "value": str(value)} for name, value in told.items()]
        create_table_artifact(table=rows, key=f"espalier-{flow}", description=f"What {flow} did")
    return told
