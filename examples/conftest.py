"""A real prediction server that asks for a token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from espalier.postgres import embedded
from espalier.serving.testing import create_online_table, running_registry, write_model
from espalier.serving.testing_server import Running, serving
from espalier.serving.tokens import new_token


@dataclass(frozen=True)
class Guarded:
    """The server, and a token that it takes."""

    running: Running
    token: str

    @property
    def http_url(self) -> str:
        """Where it serves HTTP."""
        return str(self.running.http.base_url)


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("server")
    token, line = new_token("examples")
    (folder / "tokens").write_text(line + "\n")
    write_model(folder / "one")
    with embedded.temporary() as postgres, running_registry() as registry:
        create_online_table(postgres.dsn())
        registry.publish("1", folder / "one")
        with serving(postgres.dsn(), registry.uri, folder, "--tokens", "tokens") as running:
            running.until(running.is_ready, seconds=60)
            yield Guarded(running, token)
