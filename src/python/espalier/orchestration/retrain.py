"""Trains a new model where it can be watched: by a worker, as a part of this run, or right here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from espalier.errors import BadData, CheckRefused, DependencyUnreachable
from espalier.project import Project
from espalier.registry import versions

# A training that a worker took and that is not done by then is somebody's to look at.
LONGEST_SECONDS = 3 * 3600.0


@dataclass(frozen=True)
class Retrained:
    """How a training ended: "promoted", "refused", or "impossible" with the labels known.

    `where` is the Prefect run that did it, by name, or "this process".
    """

    outcome: str
    why: str
    version: str | None
    where: str


def retrain(project: Project, *, as_of: date, tracking_uri: str, key: str) -> Retrained:
    """Train as of a day, and say how it ended.

    Inside a Prefect flow run, the deployment `train/<project>-train` does it when there is one and
    a worker of its pool is up; otherwise it is a subflow. Without Prefect's server it is simply done.

    Args:
        project: The declaration.
        as_of: The day whose knowledge is trained on.
        tracking_uri: MLflow.
        key: Names what asked for it. Asked again under the same key, a worker's run that is under
            way is waited for, and what was registered already is not trained again.

    Raises:
        DependencyUnreachable: PostgreSQL, MLflow or Prefect does not answer, or the worker's run
            ended otherwise than by training.
    """
    from prefect.context import FlowRunContext

    try:
        if FlowRunContext.get() is None:
            return _here(project, as_of, key, recorded=False)
        if _worker_is_up(project):
            return _by_worker(project, as_of, tracking_uri, key)
        return _here(project, as_of, key, recorded=True)
    except (CheckRefused, BadData) as error:
        return Retrained("impossible", str(error), None, "this process")


def _here(project: Project, as_of: date, key: str, *, recorded: bool) -> Retrained:
    from espalier.orchestration.flows.train import train

    run: Any = train if recorded else train.fn
    facts: dict[str, Any] = run(project=project.name, as_of=as_of, asked_by=key)
    outcome = "promoted" if facts["promoted"] else "refused"
    return Retrained(outcome, facts["reason"], facts["version"], "this process")


def _deployment(project: Project) -> str:
    return f"train/{project.name}-train"


def _worker_is_up(project: Project) -> bool:
    """Whether somebody would do it: a run that nobody takes would be waited for in vain."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(_deployment(project))
            if deployment.paused or deployment.work_pool_name is None:
                return False
            pool = client.read_work_pool(deployment.work_pool_name)
        except ObjectNotFound:
            return False
    return pool.status is not None and pool.status.value == "READY"


def _by_worker(project: Project, as_of: date, tracking_uri: str, key: str) -> Retrained:
    from prefect.deployments import run_deployment

    run: Any = run_deployment(
        _deployment(project),
        parameters={"project": project.name, "as_of": as_of.isoformat(), "asked_by": key},
        tags=[key],
        idempotency_key=_idempotency_key(key),
        timeout=LONGEST_SECONDS,
        poll_interval=1,
    )
    where = f"flow run {run.name}"
    if not run.state.is_final():
        raise DependencyUnreachable(
            f"{where} of {_deployment(project)} is {run.state.name} after {LONGEST_SECONDS:.0f} s",
            fix="see it in Prefect's UI; this run carries on from there when it is run again",
        )
    if (said := _impossible(run.state)) is not None:
        return Retrained("impossible", said, None, where)
    if not run.state.is_completed():
        raise DependencyUnreachable(
            f"{where} of {_deployment(project)} ended as {run.state.name}: {run.state.message}",
            fix="see its log in Prefect's UI; run this one again and another is asked for",
        )
    trained = versions.asked_for(tracking_uri, project.name, key)
    if trained is None:
        raise DependencyUnreachable(
            f"{where} completed, and MLflow at {tracking_uri} has no version that it registered",
            fix="let the worker and this run use the same MLflow",
        )
    outcome = "promoted" if trained.gate == "accepted" else "refused"
    return Retrained(outcome, trained.gate_reason, trained.version, where)


def _idempotency_key(key: str) -> str:
    """That of the newest run asked for under this key; a new one when that brought no answer."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        asked: list[Any] = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[key])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=200,
        )
    if not asked:
        return key
    newest = asked[0].state
    answered = newest.is_completed() or _impossible(newest) is not None
    if newest.is_final() and not answered:
        return f"{key}-{len(asked) + 1}"
    newest_key: str = asked[0].idempotency_key
    return newest_key


def _impossible(state: Any) -> str | None:
    """Why nothing can be trained, when that is what a failed run says: our error's own line."""
    if not state.is_failed():
        return None
    # Prefect's message names the error's class before it.
    for kind in (CheckRefused, BadData):
        _, named, line = (state.message or "").partition(f"{kind.__name__}: ")
        if named:
            return line
    return None
