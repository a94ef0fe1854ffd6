"""The declared file of deployments: which flow runs from which PEX, when, with what, how often."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from espalier.errors import ConfigurationError
from espalier.orchestration.distribution import is_digest

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The work pool. At most `limit` runs of it at a time; None: as many as come."""

    name: str
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A queue of the pool; 1 is the highest priority."""

    name: str
    limit: int | None = None
    priority: int | None = None


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A flow of a product, run from a PEX.

    Attributes:
        name: In Prefect the deployment is `<flow>/<name>`.
        flow: The flow, such as `train`.
        project: The ML product.
        pex: The file's name in the folder of PEXes.
        sha256: The digest it must have; without it the recorded one counts.
        cron: When it runs; empty: when asked.
        timezone: Of `cron`.
        parameters: Values of the flow's parameters, beside `project`.
        concurrency: How many runs at a time, others wait; None: as many as come.
        queue: The queue of the pool.
        tags: For finding it.
        env: More environment variables of its runs.
    """

    name: str
    flow: str
    project: str
    pex: str
    sha256: str = ""
    cron: str = ""
    timezone: str = "UTC"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int | None = None
    queue: str = "default"
    tags: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def entrypoint(self) -> str:
        """The flow as `module:attribute`."""
        return f"espalier.orchestration.flows.{self.flow}:{self.flow}"


@dataclass(frozen=True)
class Declaration:
    """All that a file declares."""

    pool: Pool
    queues: tuple[Queue, ...]
    deployments: tuple[Deployment, ...]


def read(path: Path) -> Declaration:
    """The declaration in a TOML file.

    Raises:
        ConfigurationError: the file cannot be read or is not valid; it says where.
    """
    try:
        text = path.read_text()
        found = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror or error}",
            fix="name the file of deployments, as deploy/prefect/deployments.toml",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: is not TOML: {error}") from error
    if unknown := set(found) - {"pool", "queue", "deployment"}:
        raise ConfigurationError(
            f"{path}: unknown section {', '.join(sorted(unknown))}",
            fix="there are [pool], [[queue]] and [[deployment]]",
        )
    pool = _made(Pool, found.get("pool", {}), f"{path}: [pool]")
    queues = tuple(
        _made(Queue, values, f"{path}: [[queue]] {number}")
        for number, values in enumerate(found.get("queue", []), 1)
    )
    deployments = tuple(
        _made(Deployment, values, f"{path}: [[deployment]] {number}")
        for number, values in enumerate(found.get("deployment", []), 1)
    )
    declared = Declaration(pool, queues, deployments)
    _check(declared, path)
    return declared


def _made(kind: type[T], values: Any, where: str) -> T:
    if not isinstance(values, dict):
        raise ConfigurationError(f"{where}: is no table")
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]  # all are dataclasses
    if unknown := set(values) - set(known):
        raise ConfigurationError(
            f"{where}: unknown key {', '.join(sorted(unknown))}",
            fix=f"there are {', '.join(known)}",
        )
    required = {
        name
        for name, item in known.items()
        if item.default is MISSING and item.default_factory is MISSING
    }
    if missing := required - set(values):
        raise ConfigurationError(f"{where}: lacks {', '.join(sorted(missing))}")
    for name, value in values.items():
        if (wrong := _wrong(str(known[name].type), value)) is not None:
            raise ConfigurationError(f"{where}: {name} = {value!r} is no {wrong}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _wrong(declared: str, value: Any) -> str | None:
    """What a value should have been; None when it is."""
    if declared == "str":
        return None if isinstance(value, str) else "text"
    if declared == "int | None":
        return None if type(value) is int and value > 0 else "number above 0"
    if declared == "tuple[str, ...]":
        texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
        return None if texts else "list of texts"
    if declared == "Mapping[str, str]" and isinstance(value, dict):
        return None if all(isinstance(one, str) for one in value.values()) else "table of texts"
    return None if isinstance(value, dict) else "table"


def _check(declared: Declaration, path: Path) -> None:
    names = [one.name for one in declared.deployments]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"{path}: deployment {', '.join(twice)} is declared twice")
    queues = {"default", *(queue.name for queue in declared.queues)}
    for one in declared.deployments:
        where = f"{path}: deployment {one.name}"
        if one.queue not in queues:
            raise ConfigurationError(
                f"{where}: no queue {one.queue}", fix="declare it as a [[queue]] with that name"
            )
        if one.sha256 and not is_digest(one.sha256):
            raise ConfigurationError(f"{where}: sha256 = {one.sha256!r} is no digest")
        if "/" in one.pex or "project" in one.parameters:
            raise ConfigurationError(
                f"{where}: pex is a file's name, and project has a key of its own"
            )
