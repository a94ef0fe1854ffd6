"""A real prediction server over a small model and online table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

# The database with a filled online table, and the registry with a model.
from espalier.serving.conftest import dsn, models, registry  # noqa: F401
from espalier.serving.testing import Registry
from espalier.serving.testing_server import Running, serving


@pytest.fixture(scope="session")
def server(
    dsn: str,  # noqa: F811  # pytest names fixtures so
    registry: Registry,  # noqa: F811  # likewise
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    """A server that is ready."""
    with serving(dsn, registry.uri, tmp_path_factory.mktemp("server")) as running:
        running.until(running.is_ready)
        yield running
