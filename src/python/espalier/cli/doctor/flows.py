"""Checks of what runs flows: Prefect's server, the work pool, workers, deployments."""

from __future__ import annotations

from typing import Any

import httpx

from espalier.cli.doctor import http
from espalier.cli.doctor.finding import Finding, Subject, fail, note, ok, warn
from espalier.orchestration import deploy, deployments, distribution
from espalier.orchestration.deploy import Program
from espalier.orchestration.deployments import Declaration

_DEPLOY = "espalier.pex deploy"


def prefect(subject: Subject) -> Finding:
    """Prefect's API answers, where one is set."""
    url = subject.settings.prefect_api_url
    if not url:
        return note(
            "PREFECT_API_URL is not set: flows from a shell run unrecorded, and no worker runs any",
            "to use Prefect set it, such as http://127.0.0.1:4200/api",
        )
    fix = "start it, or set PREFECT_API_URL to the server's address, which ends in /api"
    # Behind a password only its health is open.
    answer = http.get(f"{url.rstrip('/')}/health", "Prefect", fix)
    if answer.text.strip() != "true":
        return fail(f"what answers at {http.shown(url)} is not Prefect's API", fix)
    return ok(f"answers at {http.shown(url)}")


def pool(subject: Subject) -> Finding:
    """The work pool is there and takes work."""
    name = _declared(subject).pool.name
    with deploy.connected(subject.settings.prefect_api_url) as client:
        there = _asked(client, "GET", f"/work_pools/{name}")
    if there is None:
        return fail(f"there is no work pool {name}", _DEPLOY)
    if there.get("type") != "process":
        return fail(
            f"work pool {name} is of type {there.get('type')}, and ours are processes",
            "declare another name for it in the file of deployments, then deploy",
        )
    if there.get("is_paused"):
        return fail(f"work pool {name} is paused", f"prefect work-pool resume {name}")
    limit = there.get("concurrency_limit")
    return ok(f"work pool {name}, {'any number of' if limit is None else limit} runs at a time")


def worker(subject: Subject) -> Finding:
    """At least one worker of the pool is online."""
    name = _declared(subject).pool.name
    with deploy.connected(subject.settings.prefect_api_url) as client:
        workers = _asked(client, "POST", f"/work_pools/{name}/workers/filter")
    if workers is None:
        return fail(f"there is no work pool {name}", _DEPLOY)
    online = [one for one in workers if one.get("status") == "ONLINE"]
    if not online:
        return fail(f"no worker of pool {name} is online", f"espalier.pex worker --pool {name}")
    return ok(f"{len(online)} online")


def declared(subject: Subject) -> Finding:
    """Prefect's deployments are as declared, of the PEXes that were recorded."""
    found = _declared(subject)
    programs, unknown = _programs(found, subject)
    with deploy.connected(subject.settings.prefect_api_url) as client:
        changes = deploy.plan(client, found, programs)
        paused = _paused(client, found)
    # Of a PEX whose digest is not known here, the deployment cannot be compared as a whole.
    differing = [
        change
        for change in changes
        if change.kind == "create" or (change.kind == "update" and not _unknown(change, unknown))
    ]
    if differing:
        names = ", ".join(change.what for change in differing)
        return fail(
            f"{len(differing)} of {len(changes)} differ from the declaration: {names}"[:300],
            f"{_DEPLOY}; --dry-run shows the differences",
        )
    if paused:
        return warn(
            f"{', '.join(paused)} is paused", "whoever paused it had a reason; resume it in Prefect"
        )
    if unknown:
        return ok(
            f"{len(found.deployments)} are there; their PEXes were not compared, for "
            f"{subject.pexes / distribution.SUMS} records none"
        )
    return ok(f"{len(found.deployments)} as declared")


def _asked(client: httpx.Client, method: str, path: str) -> Any:
    """The JSON of an answer; None when there is no such thing."""
    try:
        answer = client.request(method, path, json={} if method == "POST" else None)
        answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.NOT_FOUND:
            return None
        raise
    return answer.json()


def _declared(subject: Subject) -> Declaration:
    return deployments.read(subject.deployments)


def _programs(found: Declaration, subject: Subject) -> tuple[dict[str, Program], set[str]]:
    """The PEXes by the digests that were declared or recorded, and the deployments of others."""
    recorded = distribution.recorded(subject.pexes)
    programs, unknown = {}, set()
    for one in found.deployments:
        digest = one.sha256 or recorded.get(one.pex, "")
        if not digest:
            unknown.add(one.name)
        url = distribution.address(subject.settings.pex_store, digest, one.pex)
        programs[one.pex] = Program(one.pex, digest, subject.pexes / one.pex, url)
    return programs, unknown


def _unknown(change: deploy.Change, unknown: set[str]) -> bool:
    return change.what.startswith("deployment ") and change.what.rpartition("/")[2] in unknown


def _paused(client: httpx.Client, found: Declaration) -> list[str]:
    """The deployments that somebody paused."""
    paused = []
    for one in found.deployments:
        there = _asked(client, "GET", f"/deployments/name/{one.flow}/{one.name}")
        if there is not None and there.get("paused"):
            paused.append(f"{one.flow}/{one.name}")
    return paused
