"""Brings Prefect's deployments to what is declared: first the differences, then the change."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from espalier.errors import BadData, ConfigurationError, DependencyUnreachable
from espalier.orchestration import distribution
from espalier.orchestration.deployments import Declaration, Deployment, Pool, Queue
from espalier.orchestration.run_artifact import PROGRAM
from espalier.project import load_function

_POOL_TYPE = "process"


@dataclass(frozen=True)
class Program:
    """A PEX that was found and compared: `path` here, `url` in the store."""

    name: str
    digest: str
    path: Path
    url: str

    @property
    def command(self) -> str:
        """What a worker runs."""
        return shlex.join([PROGRAM, "--sha256", self.digest, self.url])


@dataclass(frozen=True)
class Change:
    """One thing in Prefect and how it differs: `kind` is "create", "update" or "same".

    `path` and `method` are the request that brings it to `body`.
    """

    what: str
    kind: str
    differences: tuple[str, ...]
    method: str
    path: str
    body: Mapping[str, Any]


def programs(
    declared: Sequence[Deployment], *, folder: Path, store: str, record: bool = False
) -> dict[str, Program]:
    """The PEXes of deployments, by file name, each with the digest that was declared or recorded.

    Args:
        declared: The deployments.
        folder: Where the PEXes were built; its `SHA256SUMS` records what was tested.
        store: Where workers will fetch them.
        record: Whether to record, rather than compare, what is not declared.

    Raises:
        ConfigurationError: a PEX is not there, or its digest is neither declared nor recorded.
        BadData: its digest is another.
    """
    known = {} if record else distribution.recorded(folder)
    found: dict[str, Program] = {}
    for one in declared:
        path = folder / one.pex
        digest = found[one.pex].digest if one.pex in found else distribution.digest_of(path)
        wanted, where = (
            (one.sha256, f"deployment {one.name} declares")
            if one.sha256
            else (known.get(one.pex), f"{folder / distribution.SUMS} records")
        )
        if wanted is None and not record:
            raise ConfigurationError(
                f"{path}: its digest is neither declared nor recorded",
                fix="record what was tested: espalier deploy --record",
            )
        if wanted is not None and wanted != digest:
            raise BadData(
                f"{path} has the sha256 {digest[:12]}..., and {where} {wanted[:12]}...",
                fix="deploy the PEX that was tested, or test this one and record it anew",
            )
        url = distribution.address(store, digest, one.pex)
        found[one.pex] = Program(one.pex, digest, path, url)
    if record:
        distribution.record(folder, {name: program.digest for name, program in found.items()})
    return found


@contextmanager
def connected(api_url: str) -> Iterator[httpx.Client]:
    """A client of the Prefect server, with the credentials that Prefect knows.

    Raises:
        ConfigurationError: no address is set.
        DependencyUnreachable: the server does not answer, or refuses what is asked.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    if not api_url:
        raise ConfigurationError(
            "PREFECT_API_URL is not set", fix="set it, such as http://127.0.0.1:4200/api"
        )
    try:
        # Without an address in its own settings Prefect would start a server of its own.
        with (
            temporary_settings({PREFECT_API_URL: api_url}),
            get_client(sync_client=True) as client,
        ):
            client.raise_for_api_version_mismatch()
            yield client._client  # noqa: SLF001  # the one way to requests with its credentials
    except RuntimeError as error:
        raise DependencyUnreachable(
            f"Prefect: {error}", fix="start the server that PREFECT_API_URL names"
        ) from error
    except httpx.HTTPStatusError as error:
        said = error.response.text[:300]
        raise DependencyUnreachable(
            f"Prefect at {api_url} refused {error.request.url.path}: {said}",
            fix="see the server's log",
        ) from error
    except httpx.HTTPError as error:
        raise DependencyUnreachable(
            f"Prefect at {api_url}: {error}", fix="start the server that PREFECT_API_URL names"
        ) from error


def plan(client: httpx.Client, declared: Declaration, found: Mapping[str, Program]) -> list[Change]:
    """What differs between the server and the declaration, in the order of applying it.

    Raises:
        ConfigurationError: a declared flow, parameter or schedule is none.
    """
    changes = [_pool(client, declared.pool)]
    changes += [_queue(client, declared.pool, queue) for queue in declared.queues]
    for one in declared.deployments:
        changes.append(_deployment(client, declared.pool, one, found[one.pex]))
    return changes


def apply(client: httpx.Client, changes: Sequence[Change]) -> None:
    """Make the changes."""
    for change in changes:
        if change.kind == "same":
            continue
        body = dict(change.body)
        if (flow := body.pop("flow", None)) is not None:
            body["flow_id"] = _asked(client, "POST", "/flows/", {"name": flow})["id"]
        _asked(client, change.method, change.path, body)


def told(changes: Sequence[Change]) -> str:
    """The differences as text: + is new, ~ changes, = stays."""
    sign = {"create": "+", "update": "~", "same": "="}
    lines = []
    for change in changes:
        lines.append(f"{sign[change.kind]} {change.what}")
        lines += [f"    {difference}" for difference in change.differences]
    return "\n".join(lines)


def _pool(client: httpx.Client, pool: Pool) -> Change:
    wanted = {"type": _POOL_TYPE, "concurrency_limit": pool.limit}
    there = _read(client, f"/work_pools/{pool.name}")
    if there is not None and there["type"] != _POOL_TYPE:
        raise ConfigurationError(
            f"work pool {pool.name} is there and is of type {there['type']}",
            fix="declare another name, or delete that pool",
        )
    update = {"concurrency_limit": pool.limit}
    return _change(
        f"work pool {pool.name}",
        wanted,
        there,
        create=("POST", "/work_pools/", {"name": pool.name, **wanted}),
        update=("PATCH", f"/work_pools/{pool.name}", update),
    )


def _queue(client: httpx.Client, pool: Pool, queue: Queue) -> Change:
    wanted: dict[str, Any] = {"concurrency_limit": queue.limit}
    if queue.priority is not None:
        wanted["priority"] = queue.priority
    folder = f"/work_pools/{pool.name}/queues"
    return _change(
        f"queue {queue.name} of {pool.name}",
        wanted,
        _read(client, f"{folder}/{queue.name}"),
        create=("POST", folder, {"name": queue.name, **wanted}),
        update=("PATCH", f"{folder}/{queue.name}", wanted),
    )


def _deployment(client: httpx.Client, pool: Pool, one: Deployment, program: Program) -> Change:
    from prefect.utilities.callables import parameter_schema

    flow: Any = load_function(one.entrypoint)
    schema = parameter_schema(flow).model_dump_for_openapi()
    if unknown := set(one.parameters) - set(schema["properties"]):
        raise ConfigurationError(
            f"deployment {one.name}: flow {one.flow} has no parameter {', '.join(sorted(unknown))}",
            fix=f"it has {', '.join(schema['properties'])}",
        )
    wanted = {
        "entrypoint": one.entrypoint,
        "work_pool_name": pool.name,
        "work_queue_name": one.queue,
        "parameters": {"project": one.project, **one.parameters},
        "schedules": _schedules(one),
        "concurrency_limit": one.concurrency,
        "tags": sorted(one.tags),
        "job_variables": {"command": program.command, "env": dict(one.env)},
        "version": program.digest[:12],
        "description": flow.description.splitlines()[0] if flow.description else "",
        "parameter_openapi_schema": schema,
        "enforce_parameter_schema": True,
        # Else Prefect has each run work in the folder where deploy was called.
        "pull_steps": [],
        "path": "",
    }
    there = _read(client, f"/deployments/name/{one.flow}/{one.name}")
    if there is not None:
        there = {**there, "schedules": [_schedule(s) for s in there["schedules"]]}
        there["concurrency_limit"] = (there.get("global_concurrency_limit") or {}).get("limit")
        there["pull_steps"] = there.get("pull_steps") or []
        there["path"] = there.get("path") or ""
        there["tags"] = sorted(there["tags"])
    body = {"name": one.name, "flow": one.flow, **wanted}
    if one.concurrency is not None:
        body["concurrency_options"] = {"collision_strategy": "ENQUEUE"}
    if there is not None:
        # Whoever paused it did so for a reason.
        body["paused"] = there["paused"]
    request = ("POST", "/deployments/", body)
    return _change(
        f"deployment {one.flow}/{one.name}", wanted, there, create=request, update=request
    )


def _schedules(one: Deployment) -> list[dict[str, Any]]:
    if not one.cron:
        return []
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=one.cron, timezone=one.timezone)
    except ValueError as error:
        raise ConfigurationError(
            f"deployment {one.name}: cron = {one.cron!r} in {one.timezone!r} is no schedule",
            fix="give minute, hour, day, month and weekday, as 0 6 1 * *, and a zone as UTC",
        ) from error
    return [{"schedule": {"cron": one.cron, "timezone": one.timezone}, "active": True}]


def _schedule(there: Mapping[str, Any]) -> dict[str, Any]:
    """A server's schedule, of what we declare of one."""
    schedule = {k: v for k, v in there["schedule"].items() if k in ("cron", "timezone", "interval")}
    return {"schedule": schedule, "active": there["active"]}


def _change(
    what: str,
    wanted: Mapping[str, Any],
    there: Mapping[str, Any] | None,
    *,
    create: tuple[str, str, Mapping[str, Any]],
    update: tuple[str, str, Mapping[str, Any]],
) -> Change:
    if there is None:
        shown = [f"{k}: {_short(v)}" for k, v in wanted.items() if k not in _NOT_SHOWN and v]
        return Change(what, "create", tuple(shown), *create)
    differences = tuple(
        f"{name}: {_short(there.get(name))} -> {_short(value)}"
        for name, value in wanted.items()
        if there.get(name) != value
    )
    return Change(what, "update" if differences else "same", differences, *update)


_NOT_SHOWN = ("parameter_openapi_schema", "enforce_parameter_schema", "description", "type")
_LONGEST = 400


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _read(client: httpx.Client, path: str) -> dict[str, Any] | None:
    """What is there; None when nothing is."""
    try:
        return _asked(client, "GET", path)
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.NOT_FOUND:
            return None
        raise


def _asked(
    client: httpx.Client, method: str, path: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    answer = client.request(method, path, json=body)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json() if answer.content else {}
    return found
