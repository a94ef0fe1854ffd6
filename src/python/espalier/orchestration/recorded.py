"""Flow runs that a Prefect server records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from espalier.errors import ConfigurationError, DependencyUnreachable


def run(flow: Any, values: Mapping[str, Any], *, api_url: str) -> dict[str, Any]:
    """Run a Prefect flow in this process, recorded by the server at `api_url`.

    Args:
        flow: The Prefect flow.
        values: Its parameters.
        api_url: The value of PREFECT_API_URL, which Prefect reads by itself.

    Raises:
        ConfigurationError: `api_url` is no http or https address.
        DependencyUnreachable: nothing that this Prefect can talk to answers there.
        EspalierError: the flow failed.
        KeyboardInterrupt: SIGINT or SIGTERM ended it.
    """
    from prefect.exceptions import TerminationSignal

    check(api_url)
    try:
        facts: dict[str, Any] = flow(**values)
    except TerminationSignal as error:
        # Prefect's own name for a SIGTERM while a flow runs.
        raise KeyboardInterrupt from error
    except httpx.HTTPError as error:
        raise DependencyUnreachable(
            f"Prefect's API at {api_url} was lost during the run: {error}",
            fix="run the flow again; what it had done already is not done twice",
        ) from error
    return facts


@contextmanager
def delivered(*, seconds: float = 10.0) -> Iterator[None]:
    """At the end have sent what Prefect sends in the background: the logs and events of runs.

    For who stops the server afterwards. Left alone, Prefect would try for a minute to reach it.

    Args:
        seconds: How long to wait at most, for each of both.
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    try:
        yield
    finally:
        APILogWorker.drain_all(timeout=seconds)
        EventsWorker.drain_all(timeout=seconds)


def check(api_url: str) -> None:
    """Look whether a server that this Prefect can talk to answers.

    Raises:
        ConfigurationError: `api_url` is no http or https address.
        DependencyUnreachable: it does not.
    """
    from prefect.client.orchestration import get_client

    if urlsplit(api_url).scheme not in ("http", "https"):
        raise ConfigurationError(
            f"PREFECT_API_URL={api_url!r} is not an http or https address",
            fix="give the address of a Prefect server, such as http://127.0.0.1:4200/api",
        )
    try:
        with get_client(sync_client=True) as client:
            client.raise_for_api_version_mismatch()
    except RuntimeError as error:
        # Prefect's one error for no answer and for a version that it cannot talk to.
        raise DependencyUnreachable(
            f"Prefect: {error}",
            fix="start the server that PREFECT_API_URL names, or unset it to run unrecorded",
        ) from error
