"""What tests of the doctor need: something to look at, and parts that hang or are others."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from churn.project import PROJECT
from espalier.cli.doctor.catalog import CHECKS
from espalier.cli.doctor.examine import Examined, examine
from espalier.cli.doctor.finding import Finding, Subject
from espalier.settings import read
from espalier.testing_web import Handler, web_server


def subject(
    folder: Path, *, env: Mapping[str, str] | None = None, as_of: datetime | None = None
) -> Subject:
    """A subject whose settings are these variables, with its files in a folder."""
    given = dict(env or {})
    return Subject(
        settings=read(given),
        project=PROJECT,
        environ=given,
        env_file=folder / ".env",
        as_of=as_of or datetime.now(UTC),
        deployments=folder / "deployments.toml",
        pexes=folder / "dist",
    )


def examined(looked_at: Subject, *names: str) -> list[Examined]:
    """What these checks find."""
    return list(examine([check for check in CHECKS if check.name in names], looked_at))


def found(looked_at: Subject, name: str) -> Finding:
    """What one check finds."""
    [one] = examined(looked_at, name)
    return one.finding


@contextmanager
def hanging() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


@contextmanager
def answering(status: int = 200, body: Any = "hello") -> Iterator[str]:
    """The address of a web server that answers everything alike: not the one that was meant."""
    content = (body if isinstance(body, str) else json.dumps(body)).encode()

    class Alike(Handler):
        def answer(self) -> tuple[int, bytes]:
            return status, content

        do_POST = Handler.do_GET  # noqa: N815  # the handler's own naming

    with web_server(Alike) as address:
        yield address
