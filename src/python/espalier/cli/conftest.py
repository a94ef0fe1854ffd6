"""A real prediction server, and quickstart as a program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.postgres import embedded
from espalier.serving.testing import create_online_table, running_registry, write_model
from espalier.serving.testing_server import Running, serving


@pytest.fixture(scope="session")
def prediction_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server for churn over a small model and the entities of `espalier.serving.testing`."""
    folder: Path = tmp_path_factory.mktemp("serving")
    write_model(folder / "one")
    with embedded.temporary() as postgres, running_registry() as registry:
        create_online_table(postgres.dsn())
        registry.publish("1", folder / "one")
        with serving(postgres.dsn(), registry.uri, folder) as running:
            running.until(running.is_ready)
            yield running
