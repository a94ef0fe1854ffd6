"""Becomes Prefect's process worker, with what it needs to run PEXes by their digest."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from espalier.errors import ConfigurationError
from espalier.orchestration.run_artifact import PROGRAM
from espalier.processes import python_environment
from espalier.settings import Settings


def launcher(cache: Path) -> Path:
    """The program `espalier-run` of this worker, made when it is not there.

    It lies in a folder named after what it says, so that workers of two releases share a cache.
    """
    runs = f"{shlex.quote(sys.executable)} -m espalier.orchestration.run_artifact"
    text = f'#!/bin/sh\nexec {runs} "$@"\n'
    path = cache / "bin" / hashlib.sha256(text.encode()).hexdigest()[:12] / PROGRAM
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        making = path.with_name(f".{PROGRAM}.{os.getpid()}")
        making.write_text(text)
        making.chmod(0o755)
        making.replace(path)
    return path


def environment(settings: Settings) -> dict[str, str]:
    """The worker's environment, which the flows that it starts inherit.

    Flow runs start in an empty folder of their own, so folders are given from the root on.

    Raises:
        ConfigurationError: the cache cannot be written.
    """
    absolute = replace(
        settings,
        data_dir=settings.data_dir.absolute(),
        reports_dir=settings.reports_dir.absolute(),
        state_dir=settings.state_dir.absolute(),
        pex_cache=settings.pex_cache.expanduser().absolute(),
    )
    try:
        folder = launcher(absolute.pex_cache).parent
    except OSError as error:
        raise ConfigurationError(
            f"the cache of programs {absolute.pex_cache}: {error.strerror or error}",
            fix="set ESPALIER_PEX_CACHE to a folder that can be written",
        ) from error
    path = os.pathsep.join([str(folder), os.environ.get("PATH", os.defpath)])
    return {**python_environment(), **absolute.environment(), "PATH": path}


def command(
    pool: str, *, name: str | None = None, limit: int | None = None, health: bool = False
) -> list[str]:
    """The argument vector of Prefect's worker.

    Args:
        pool: The work pool.
        name: The worker's name in Prefect's UI; default: one that Prefect makes up.
        limit: How many flow runs it runs at a time; default: as many as come.
        health: Whether it answers on /health while it polls; Prefect's
            PREFECT_WORKER_WEBSERVER_HOST and _PORT say where.
    """
    return [
        *(sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool", pool),
        *(["--name", name] if name else []),
        *(["--limit", str(limit)] if limit else []),
        *(["--with-healthcheck"] if health else []),
    ]


def become(argv: list[str], environment: Mapping[str, str]) -> None:
    """Go on as that program: who started us watches and signals the worker itself."""
    os.execvpe(argv[0], argv, {**os.environ, **environment})  # noqa: S606  # no shell is wanted
