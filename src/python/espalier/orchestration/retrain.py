"""Trains a new model where it can be watched: by a worker, as a part of this run, or right here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from espalier.errors import BadData, CheckRefused, DependencyUnreachable
from espalier.project import Project
from espalier.registry import versions
from espalier.registry.download import current_version

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
        key: Names what asked for it: asked again under the same key, a worker does not train again.

    Raises:
        DependencyUnreachable: PostgreSQL, MLflow or Prefect does not answer, or the worker's run
            ended otherwise than by training.
    """
    from prefect.context import FlowRunContext

    try:
        if FlowRunContext.get() is None:
            return _here(project, as_of, recorded=False)
        if _worker_is_up(project):
            return _by_worker(project, as_of, tracking_uri, key)
        return _here(project, as_of, recorded=True)
    except (CheckRefused, BadData) as error:
        return Retrained("impossible", str(error), None, "this process")


def _here(project: Project, as_of: date, *, recorded: bool) -> Retrained:
    from espalier.orchestration.flows.train import train

    run: Any = train if recorded else train.fn
    facts: dict[str, Any] = run(project=project.name, as_of=as_of)
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

    before = {one.version for one in versions.list_versions(tracking_uri, project.name)}
    run: Any = run_deployment(
        _deployment(project),
        parameters={"project": project.name, "as_of": as_of.isoformat()},
        idempotency_key=key,
        timeout=LONGEST_SECONDS,
        poll_interval=1,
    )
    where = f"flow run {run.name}"
    if not run.state.is_final():
        raise DependencyUnreachable(
            f"{where} of {_deployment(project)} is {run.state.name} after {LONGEST_SECONDS:.0f} s",
            fix="see it in Prefect's UI; this run carries on from there when it is run again",
        )
    # A failed run tells why; what it says is the line of our error.
    said = run.state.message or run.state.name
    if not run.state.is_completed():
        # Prefect's message names the error's class.
        if any(f"{kind.__name__}: " in said for kind in (CheckRefused, BadData)):
            return Retrained("impossible", said, None, where)
        raise DependencyUnreachable(
            f"{where} of {_deployment(project)} ended as {run.state.name}: {said}",
            fix="see its log in Prefect's UI",
        )
    found = versions.list_versions(tracking_uri, project.name)
    champion = current_version(tracking_uri, project.name)
    new = [one for one in found if one.version not in before] or found[:1]
    trained = new[0]
    outcome = "promoted" if trained.version == champion else "refused"
    return Retrained(outcome, trained.gate_reason, trained.version, where)
