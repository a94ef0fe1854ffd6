"""A database of its own for each test, with a small project's tables as ingest makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from psycopg import sql

from espalier.contract import Column, ColumnType, Table
from espalier.features.testing import Opened
from espalier.ingest import tables
from espalier.postgres import embedded, migrate
from espalier.postgres.connect import Connection, connect
from espalier.project import Calendar, Entity, FeatureView, Label, Project


def shop(
    time_type: ColumnType = ColumnType.DATE, key_type: ColumnType = ColumnType.TEXT, **view: Any
) -> Project:
    """A product with one feature of each type, whose events are days or instants."""
    key = Column(name="shop_id", type=key_type, description="the shop")
    happened = Column(name="happened", type=time_type, description="when")
    return Project(
        name="shops",
        description="a product for tests",
        entity=Entity(name="shop", join_key="shop_id", description="a shop"),
        tables=(
            Table(
                name="facts",
                key=("shop_id", "happened"),
                event_time="happened",
                columns=(
                    key,
                    happened,
                    Column(name="orders", type=ColumnType.INTEGER, description="", nullable=True),
                    Column(name="spend", type=ColumnType.DOUBLE, description="", nullable=True),
                ),
            ),
            Table(
                name="outcomes",
                key=("shop_id", "happened"),
                event_time="happened",
                columns=(
                    key,
                    happened,
                    Column(name="closed", type=ColumnType.BOOLEAN, description="did it close"),
                ),
            ),
        ),
        view=FeatureView(
            **{
                "name": "facts_daily",
                "table": "facts",
                "features": ("orders", "spend"),
                "ttl": timedelta(days=3),
                **view,
            }
        ),
        label=Label(
            table="outcomes",
            column="closed",
            time="happened",
            horizon=timedelta(days=2),
            positive_means="closed",
        ),
        estimator="shops.estimator:build",
        baseline="shops.estimator:baseline",
        calendar=Calendar(first=date(2020, 1, 31)),
    )


SHOPS = shop()


def day(number: int, hours: float = 0) -> datetime:
    """An instant, counted from 2020-01-01."""
    return datetime.combine(date(2020, 1, 1), time(), UTC) + timedelta(days=number, hours=hours)


def add_versions(
    connection: Connection, project: Project, table: str, rows: Sequence[Sequence[Any]]
) -> None:
    """Store versions of rows: the declared columns' values, then known_at and the snapshot."""
    columns = [*(c.name for c in project.table(table).columns), "known_at", "snapshot_id"]
    with connection.cursor() as cursor:
        cursor.executemany(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(project.name, table),
                sql.SQL(", ").join(map(sql.Identifier, columns)),
                sql.SQL(", ").join([sql.Placeholder()] * len(columns)),
            ),
            rows,
        )


def make_tables(connection: Connection, project: Project, snapshots: int = 9) -> None:
    """The project's tables, and snapshots 1 to `snapshots` for rows to belong to."""
    tables.ensure(connection, project)
    connection.execute(
        "INSERT INTO espalier.snapshots (id, project, as_of, revision, digest, files, row_counts,"
        " validation, created_by) OVERRIDING SYSTEM VALUE SELECT n, %s, '2020-01-01'::date + n, 1,"
        " '', '{}', '{}', '{}', 'test' FROM generate_series(1, %s) AS n",
        [project.name, snapshots],
    )


@pytest.fixture(scope="session")
def server() -> Iterator[embedded.Server]:
    with embedded.temporary() as running:
        with connect(running.dsn()) as connection:
            migrate.migrate(connection)
        yield running


@pytest.fixture
def new_database(server: embedded.Server) -> Iterator[Callable[[], str]]:
    """Makes migrated databases; gives their connection strings."""
    made: list[str] = []

    def make() -> str:
        name = f"test_{len(made)}"
        with connect(server.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {embedded.USER}".encode())
        made.append(name)
        return server.dsn(name)

    yield make
    with connect(server.dsn("postgres"), autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def dsn(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def opened(dsn: str) -> Iterator[Opened]:
    """An online store of its own."""
    handle = Opened(dsn)
    yield handle
    handle.store.disconnect()


@pytest.fixture
def database(dsn: str) -> Iterator[Connection]:
    """A connection to the test's database, each statement committed at once."""
    with connect(dsn, autocommit=True) as connection:
        yield connection
