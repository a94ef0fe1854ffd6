"""What a flow or one of its steps did, as its result and as a page in Prefect's UI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def publish(
    flow: str,
    facts: Mapping[str, Any],
    *,
    passed: bool = True,
    links: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Give back the facts; inside a Prefect flow run also store them as its artifact.

    Args:
        flow: The flow's name, from which the artifact has its key.
        facts: What was done, by name, as values that JSON knows.
        passed: Whether the flow's gate or check, if it has one, said yes; a command line that
            ends with a no has exit code 1.
        links: Addresses of pages that tell more, by their names.
    """
    from prefect.artifacts import create_markdown_artifact
    from prefect.context import FlowRunContext

    told = {**facts, "passed": passed}
    if FlowRunContext.get() is not None:
        create_markdown_artifact(
            _page(told, links or {}), key=f"espalier-{flow}", description=f"What {flow} did"
        )
    return told


def version_page(tracking_uri: str, project: str, version: str) -> str:
    """A model version's page in MLflow."""
    return f"{tracking_uri}/#/models/{project}/versions/{version}"


def _page(facts: Mapping[str, Any], links: Mapping[str, str]) -> str:
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in facts.items()]
    lines += [f"| {_cell(name)} | [{address}]({address}) |" for name, address in links.items()]
    return "\n".join(["| fact | value |", "|---|---|", *lines, ""])


def _cell(value: Any) -> str:
    """One line, whose bars end no cell."""
    return " ".join(str(value).split()).replace("|", "\\|")
