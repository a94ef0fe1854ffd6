"""A real prediction server over a small model and online table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.postgres import embedded
from espalier.serving.testing import Registry, create_online_table, running_registry, write_model
from espalier.serving.testing_server import Running, serving


@pytest.fixture(scope="session")
def dsn() -> Iterator[str]:
    with embedded.temporary() as postgres:
        create_online_table(postgres.dsn())
        yield postgres.dsn()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model version's folder."""
    folder: Path = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


@pytest.fixture(scope="session")
def registry(model: Path) -> Iterator[Registry]:
    with running_registry() as running:
        running.publish("1", model)
        yield running


@pytest.fixture(scope="session")
def server(
    dsn: str, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A server that is ready."""
    with serving(dsn, registry.uri, tmp_path_factory.mktemp("server")) as running:
        running.until(running.is_ready)
        yield running
