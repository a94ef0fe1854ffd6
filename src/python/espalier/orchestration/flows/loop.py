"""The loop flow: a month's batch, from its files to a model that fits the month."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from prefect import flow

from espalier.orchestration import action, context, steps
from espalier.orchestration.action import Action
from espalier.orchestration.artifact import publish, version_page
from espalier.orchestration.context import FlowContext
from espalier.orchestration.flows.ingest import ingest
from espalier.orchestration.flows.materialize import materialize
from espalier.orchestration.flows.monitor import monitor
from espalier.orchestration.flows.score import score
from espalier.orchestration.retrain import Retrained, retrain
from espalier.postgres.connect import connect
from espalier.registry import download
from espalier.registry.download import Champion


@flow(name="loop")
def loop(
    project: str,
    as_of: date | None = None,
    source: Path | None = None,
    *,
    wait_seconds: int = 0,
    score_all: bool = False,
) -> dict[str, Any]:
    """Ingest, materialize, monitor, and train when that asks for it; run twice, nothing doubles.

    Args:
        project: The ML product.
        as_of: The batch's day; default: the newest batch day up to today.
        source: The folder with the batch's files; default: the batch of that day in the data folder.
        wait_seconds: How long to wait for the batch, see the ingest flow.
        score_all: Also predict for every entity, into the reports folder.
    """
    with context.begin(project, flow="loop") as begun:
        day = as_of or begun.project.calendar.newest(datetime.now(UTC).date())
        stored = steps.run(
            "ingest", lambda: ingest.fn(project, day, source, wait_seconds=wait_seconds)
        )
        decided = _stored(begun, day)
        uri = begun.settings.mlflow_tracking_uri
        if decided is None:
            steps.run("materialize", lambda: materialize.fn(project, day))
            champion = steps.run("champion", lambda: _champion(uri, project))
            if champion is not None:
                steps.run("monitor", lambda: monitor.fn(project, day))
            decided = steps.run("action", lambda: _decide(begun, day, champion))
        if not decided.finished:
            done = retrain(
                begun.project,
                as_of=day,
                tracking_uri=uri,
                key=decided.key(project),
            )
            asked = decided
            decided = steps.run("outcome", lambda: _finish(begun, day, asked, done))
        serving = download.current_version(uri, project)
        scored = None
        if score_all and serving is not None:
            scored = steps.run("score", lambda: score.fn(project, day))
        return publish(
            "loop",
            {
                "as_of": day.isoformat(),
                "snapshot": stored["snapshot"],
                "ingest": stored["status"],
                **_told(decided),
                "champion": serving,
                "scored": scored and scored["rows"],
            },
            passed=decided.outcome != "refused",
            links=_pages(uri, project, serving, decided),
        )


def _champion(uri: str, project: str) -> Champion | None:
    found = download.champion(uri, project)
    links = {"model": version_page(uri, project, found.version)} if found else {}
    publish("champion", {"version": found and found.version}, links=links)
    return found


def _pages(uri: str, project: str, serving: str | None, decided: Action) -> dict[str, str]:
    """The pages of the models that it tells of."""
    told = {"champion": serving, "trained": decided.model_version}
    return {
        f"{name}'s page": version_page(uri, project, version)
        for name, version in told.items()
        if version is not None
    }


def _stored(begun: FlowContext, day: date) -> Action | None:
    with connect(begun.settings.dsn) as connection:
        return action.stored(connection, begun.project, as_of=day)


def _decide(begun: FlowContext, day: date, champion: Champion | None) -> Action:
    with connect(begun.settings.dsn) as connection:
        decided = action.decide(connection, begun.project, as_of=day, champion=champion)
    publish("action", _told(decided))
    return decided


def _finish(begun: FlowContext, day: date, decided: Action, done: Retrained) -> Action:
    with connect(begun.settings.dsn) as connection:
        action.finish(connection, decided, outcome=done.outcome, why=done.why, version=done.version)
        finished = action.stored(connection, begun.project, as_of=day)
    assert finished is not None, "it was decided"
    publish("outcome", {**_told(finished), "trained by": done.where})
    return finished


def _told(decided: Action) -> Mapping[str, Any]:
    signals = decided.signals
    return {
        "looked at": decided.champion,
        "drift": signals.drift,
        "live": signals.live_value,
        "live at most": signals.live_high,
        "expected": signals.expected,
        "decision": decided.decision,
        "why": decided.why,
        "outcome": decided.outcome,
        "gate": decided.outcome_why,
        "trained": decided.model_version,
    }
