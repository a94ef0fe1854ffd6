"""The sides of the comparison as processes of their own, one at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from espalier.postgres.testing import variables
from espalier.probe import answers
from espalier.processes import Process, python_environment, reserved_port
from serving.place import Place

_PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Side:
    """A running server; an address is empty where it has none of that kind."""

    process: Process
    grpc: str = ""
    http: str = ""


@contextmanager
def ours(
    place: Place,
    *arguments: str,
    program: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Side]:
    """Our server, from source or from a PEX, with the options that people start it with."""
    with ExitStack() as exits:
        grpc, http = (f"127.0.0.1:{exits.enter_context(reserved_port())}" for _ in range(2))
        command = (
            [program]
            if program
            else [sys.executable, "-m", "espalier.serving.main", "--project", place.project.name]
        )
        process = exits.enter_context(
            Process(
                "our server",
                [
                    *(*command, "--grpc-address", grpc, "--http-address", http),
                    *("--as-of", place.as_of.date().isoformat(), *arguments),
                ],
                log=place.folder / "ours.log",
                env={
                    # A PEX brings all that it imports.
                    **({} if program else python_environment()),
                    **_variables(place),
                    **(environment or {}),
                },
            )
        )
        process.wait_until(lambda: answers(f"http://{http}/ready"), seconds=_PATIENCE_SECONDS)
        yield Side(process, grpc, f"http://{http}")


@contextmanager
def template(place: Place) -> Iterator[Side]:
    """FastAPI, Feast's SDK over its PostgreSQL store, and scikit-learn."""
    with (
        reserved_port() as port,
        Process(
            "the template",
            [
                *(sys.executable, "-m", "serving.template_app"),
                *(str(place.template_configuration), str(port)),
            ],
            log=place.folder / "template.log",
            # scikit-learn's threads would fight over the cores.
            env={**python_environment(), "OMP_NUM_THREADS": "1"},
        ) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        process.wait_until(lambda: answers(f"{url}/health"), seconds=_PATIENCE_SECONDS)
        yield Side(process, http=url)


@contextmanager
def echo(place: Place) -> Iterator[Side]:
    """A bare grpc.aio server of the same messages."""
    with reserved_port() as port:
        # Its own for each start: what is waited for is in it.
        log = place.folder / f"echo-{port}.log"
        address = f"127.0.0.1:{port}"
        with Process(
            "the echo server",
            [sys.executable, "-m", "serving.echo_server", address],
            log=log,
            env=python_environment(),
        ) as process:
            process.wait_until(lambda: "ready" in log.read_text(), seconds=_PATIENCE_SECONDS)
            yield Side(process, grpc=address)


def _variables(place: Place) -> dict[str, str]:
    return {**variables(place.dsn), "MLFLOW_TRACKING_URI": place.tracking_uri}
