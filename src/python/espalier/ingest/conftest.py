"""An empty database for each test, and small batches: real ones, and one of every type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path

import pytest

from espalier.contract import Column, ColumnType, Table
from espalier.ingest.run import Ingested, ingest
from espalier.postgres import embedded, migrate
from espalier.postgres.connect import Connection, connect
from espalier.project import Calendar, Entity, FeatureView, Label, Project

Run = Callable[..., Ingested]

AS_OF = date(2024, 1, 31)
LATER = date(2024, 2, 29)

ROOMS = Table(
    name="rooms",
    key=("room",),
    columns=(
        Column(name="room", type=ColumnType.INTEGER, description="its number", minimum=1),
        Column(
            name="kind", type=ColumnType.TEXT, description="its kind", allowed=("single", "double")
        ),
        Column(name="note", type=ColumnType.TEXT, description="of the staff", nullable=True),
    ),
)
NIGHTS = Table(
    name="nights",
    key=("room", "night"),
    event_time="night",
    columns=(
        Column(
            name="room", type=ColumnType.INTEGER, description="the room", references="rooms.room"
        ),
        Column(name="night", type=ColumnType.DATE, description="its evening"),
        Column(
            name="price",
            type=ColumnType.DOUBLE,
            description="euros",
            nullable=True,
            minimum=-0.5,
            maximum=1000,
        ),
        Column(name="booked", type=ColumnType.TIMESTAMP, description="when it was", nullable=True),
    ),
)
STAYS = Table(
    name="stays",
    key=("room", "night"),
    event_time="night",
    min_rows=0,
    columns=(
        Column(name="room", type=ColumnType.INTEGER, description="the room"),
        Column(name="night", type=ColumnType.DATE, description="its evening"),
        Column(name="stayed", type=ColumnType.BOOLEAN, description="came at all"),
    ),
)


def hotel(*tables: Table) -> Project:
    """A product with a column of every type and a check of every kind; `tables` replace its own."""
    ours = {table.name: table for table in (ROOMS, NIGHTS, STAYS, *tables)}
    return Project(
        name="hotel",
        description="a product for tests",
        entity=Entity(name="room", join_key="room", description="a room"),
        tables=tuple(ours.values()),
        view=FeatureView(
            name="nightly", table="nights", features=("price",), ttl=timedelta(days=1)
        ),
        label=Label(
            table="stays",
            column="stayed",
            time="night",
            horizon=timedelta(days=2),
            positive_means="the guest came",
        ),
        estimator="hotel.estimator:build",
        baseline="hotel.estimator:baseline",
        calendar=Calendar(first=AS_OF),
    )


HOTEL = hotel()
BATCH: Mapping[str, str] = {
    "rooms": "room,kind,note\n1,single,\n2,double,by the lift\n",
    "nights": (
        "room,night,price,booked\n"
        "1,2024-01-30,80.5,2024-01-02T03:04:05Z\n"
        "1,2024-01-31,,\n"
        "2,2024-01-31,1e2,2024-01-02 03:04+02\n"
    ),
    "stays": "room,night,stayed\n1,2024-01-28,true\n2,2024-01-29,0\n",
}


def write_batch(folder: Path, **changed: str | bytes) -> Path:
    """The folder with `BATCH`, some tables' files changed."""
    folder.mkdir(exist_ok=True)
    for table, text in {**BATCH, **changed}.items():
        data = text if isinstance(text, bytes) else text.encode()
        (folder / f"{table}.csv").write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def server() -> Iterator[embedded.Server]:
    with embedded.temporary() as running:
        with connect(running.dsn()) as connection:
            migrate.migrate(connection, [m for m in migrate.packaged() if m.number <= 6])
        yield running


@pytest.fixture
def dsn(server: embedded.Server) -> str:
    """A database without snapshots: emptied, which is ten times faster than a new one."""
    with connect(server.dsn(), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        connection.execute("DROP SCHEMA IF EXISTS hotel, churn, staging CASCADE")
        connection.execute("CREATE SCHEMA staging")
        # Past the trigger that refuses this to everyone else.
        connection.execute("SET session_replication_role = replica")
        connection.execute(
            "TRUNCATE espalier.snapshots, espalier.quarantine_batches, "
            "espalier.quarantine_rows, espalier.contracts RESTART IDENTITY"
        )
    address: str = server.dsn()
    return address


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with connect(dsn, autocommit=True) as open_connection:
        yield open_connection


@pytest.fixture
def run(dsn: str, tmp_path: Path) -> Run:
    """Ingest into the test's database: the hotel's batch, unless told otherwise."""

    def ingest_batch(
        source: Path, *, project: Project = HOTEL, as_of: date = AS_OF, revision: bool = False
    ) -> Ingested:
        return ingest(
            project,
            source=source,
            as_of=as_of,
            dsn=dsn,
            reports_dir=tmp_path / "reports",
            who="tester",
            revision=revision,
        )

    return ingest_batch
