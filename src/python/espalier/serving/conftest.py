"""One PostgreSQL with a filled online table, and one model, for the tests of serving."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.postgres import embedded
from espalier.processes import reserved_port
from espalier.serving import testing_products
from espalier.serving.loading import LoadedModel, load
from espalier.serving.testing import Registry, create_online_table, running_registry, write_model
from espalier.serving.testing_database import Database
from espalier.serving.testing_server import Running, serving


@pytest.fixture
def port() -> Iterator[int]:
    """A port for a server that a test starts later, or twice."""
    with reserved_port() as port:
        yield port


@pytest.fixture(scope="session")
def dsn() -> Iterator[str]:
    with embedded.temporary() as server:
        create_online_table(server.dsn())
        yield server.dsn()


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder: Path = tmp_path_factory.mktemp("model")
    return load("churn", "1", folder=folder, manifest=write_model(folder))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions with different scores, in the folders `one` and `two`."""
    root: Path = tmp_path_factory.mktemp("models")
    write_model(root / "one")
    write_model(root / "two", slope=-0.01)
    return root


@pytest.fixture(scope="session")
def registry(models: Path) -> Iterator[Registry]:
    with running_registry() as running:
        running.publish("1", models / "one")
        yield running


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A PostgreSQL of the module's own, for tests that stop it, hang it or lock it."""
    with Database(tmp_path_factory.mktemp("database")) as database:
        create_online_table(database.dsn)
        yield database


@pytest.fixture
def running(database: Database, registry: Registry, tmp_path: Path) -> Iterator[Running]:
    """A server over that database, ready."""
    with serving(database.dsn, registry.uri, tmp_path) as running:
        running.until(running.is_ready)
        yield running


@pytest.fixture(scope="session")
def server(
    dsn: str, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with serving(dsn, registry.uri, tmp_path_factory.mktemp("server")) as running:
        running.until(running.is_ready)
        yield running


@pytest.fixture(scope="session")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a server of `testing_products` takes, in folders.

    `packages` has their declarations, `one` and `two` versions of wine's model with different
    scores, and `houses` a version of the other.
    """
    root: Path = tmp_path_factory.mktemp("products")
    testing_products.write_packages(root / "packages")
    testing_products.write_model(testing_products.WINE, root / "one")
    testing_products.write_model(testing_products.WINE, root / "two", slope=-1)
    testing_products.write_model(testing_products.HOUSES, root / "houses")
    return root


@pytest.fixture(scope="module")
def products_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A PostgreSQL with the online tables of three products."""
    with Database(tmp_path_factory.mktemp("products-database")) as database:
        create_online_table(database.dsn)
        for project in (testing_products.WINE, testing_products.HOUSES):
            testing_products.create_online_table(database.dsn, project)
        yield database


@pytest.fixture(scope="module")
def several(
    products_database: Database,
    models: Path,
    products: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Running, Registry]]:
    """A server of churn, wine and houses, ready, and its registry."""
    with running_registry() as registry:
        registry.publish("1", models / "one")
        registry.of("wine").publish("1", products / "one")
        registry.of("houses").publish("1", products / "houses")
        with serving(
            products_database.dsn,
            registry.uri,
            tmp_path_factory.mktemp("several"),
            *("--project", "wine", "--project", "houses"),
            packages=products / "packages",
        ) as running:
            running.until(running.is_ready)
            yield running, registry
