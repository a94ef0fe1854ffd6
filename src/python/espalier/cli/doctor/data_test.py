"""The checks of the data against a real PostgreSQL: away, hanging, wrong, behind, and well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from churn.project import PROJECT
from espalier.cli.doctor.finding import Subject
from espalier.cli.doctor.testing import examined, found, hanging, subject
from espalier.features import feast_store
from espalier.ingest.run import ingest
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import migrate, packaged
from espalier.postgres.testing import variables

SEEDS = Path("data/seeds").absolute()
FIRST, SECOND = date(1997, 6, 30), date(1997, 7, 31)
TABLE = "online.churn_customer_monthly"


@pytest.fixture(scope="module")
def server() -> Iterator[embedded.Server]:
    with embedded.temporary() as running:
        yield running


@pytest.fixture(scope="module")
def filled(server, tmp_path_factory) -> Subject:
    """A database with two months of customers, the first of them online."""
    folder = tmp_path_factory.mktemp("filled")
    with connect(server.dsn()) as connection:
        migrate(connection)
    feast_store.apply(PROJECT, dsn=server.dsn())
    for month, day in enumerate((FIRST, SECOND)):
        ingest(
            PROJECT,
            source=SEEDS / "churn" / f"month_{month:03}",
            as_of=day,
            dsn=server.dsn(),
            reports_dir=folder,
            who="tester",
        )
        if day == FIRST:
            feast_store.materialize(PROJECT, dsn=server.dsn(), end=midnight(day))
    return subject(folder, env=variables(server.dsn()), as_of=midnight(SECOND))


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def other_database(server, name: str) -> str:
    embedded.create_database(server, name)
    dsn: str = server.dsn(name)
    return dsn


def test_nothing_listens(tmp_path):
    looked_at = subject(tmp_path, env={"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": "1"})
    database, migrations = examined(looked_at, "database", "migrations")
    assert database.finding.state == "fail"
    assert "127.0.0.1:1" in database.finding.what
    assert "POSTGRES_HOST" in database.finding.fix
    assert migrations.finding.what == "not looked at: see database"


def test_it_hangs(tmp_path):
    with hanging() as port:
        finding = found(
            subject(tmp_path, env={"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": str(port)}),
            "database",
        )
    assert finding.state == "fail"
    assert "timeout" in finding.what


def test_a_wrong_password_is_not_told(tmp_path, server):
    env = {**variables(server.dsn()), "POSTGRES_PASSWORD": "guessed-it"}
    finding = found(subject(tmp_path, env=env), "database")
    assert finding.state == "fail"
    assert "password authentication failed" in finding.what
    assert "guessed-it" not in finding.what + finding.fix


def test_a_database_that_is_not_there(tmp_path, server):
    finding = found(subject(tmp_path, env=variables(server.dsn("nowhere"))), "database")
    assert finding.state == "fail"
    assert 'database "nowhere" does not exist' in finding.what


def test_migrations_that_are_missing_changed_or_newer(tmp_path, server):
    dsn = other_database(server, "migrating")
    looked_at = subject(tmp_path, env=variables(dsn))
    finding = found(looked_at, "migrations")
    assert (
        finding.what
        == f"{len(packaged())} of this release's {len(packaged())} migrations are not applied"
    )
    assert finding.fix == "espalier.pex migrate"
    with connect(dsn, autocommit=True) as connection:
        migrate(connection, packaged()[:-1])
        assert found(looked_at, "migrations").what.startswith("1 of this release's")
        migrate(connection)
        assert found(looked_at, "migrations").state == "ok"
        connection.execute("UPDATE espalier.migrations SET checksum = 'x' WHERE number = 2")
        assert "0002_online.sql was changed" in found(looked_at, "migrations").what
        connection.execute("INSERT INTO espalier.migrations VALUES (9999, 'later', 'y')")
        assert "migration 9999, which this release lacks" in found(looked_at, "migrations").what


def test_nothing_is_registered_and_nothing_is_made(tmp_path, server):
    dsn = other_database(server, "unregistered")
    with connect(dsn) as connection:
        migrate(connection)
    finding = found(subject(tmp_path, env=variables(dsn)), "feast")
    assert finding.state == "fail"
    assert finding.what == "feature view customer_monthly is not registered"
    with connect(dsn) as connection:
        tables = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'feast'"
        ).fetchone()
    assert tables == (0,)


def test_the_registry_is_as_declared(filled):
    finding = found(filled, "feast")
    assert (finding.state, finding.what) == (
        "ok",
        f"{len(PROJECT.view.features)} features registered as declared",
    )


def test_another_declaration_differs(filled):
    view = replace(PROJECT.view, ttl=PROJECT.view.ttl + timedelta(days=1))
    finding = found(replace(filled, project=replace(PROJECT, view=view)), "feast")
    assert finding.state == "fail"
    assert finding.what == "source and view in Feast's registry differ from the declaration"


def test_a_changed_online_table_differs(filled, server):
    with connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {TABLE} ADD COLUMN stranger int")
        try:
            finding = found(filled, "feast")
        finally:
            connection.execute(f"ALTER TABLE {TABLE} DROP COLUMN stranger")
    assert finding.state == "fail"
    assert finding.what == f"table {TABLE} differs in stranger"


def test_the_online_store_is_behind_what_is_known_then_well_then_stale(filled, server):
    behind = found(filled, "online-store")
    assert behind.state == "fail"
    assert "those of 1997-07-31 are known and not online" in behind.what
    feast_store.materialize(PROJECT, dsn=server.dsn(), end=midnight(SECOND))
    well = found(filled, "online-store")
    assert well.state == "ok"
    assert well.what.endswith("entities, the newest features of 1997-07-31")
    stale = found(replace(filled, as_of=datetime.now(UTC)), "online-store")
    assert stale.state == "warn"
    assert "--as-of DATE" in stale.fix


def test_an_empty_online_store_fails(tmp_path, server):
    dsn = other_database(server, "empty")
    with connect(dsn) as connection:
        migrate(connection)
    assert found(subject(tmp_path, env=variables(dsn)), "online-store").what == (
        "the online store is empty"
    )


def test_a_locked_table_is_not_waited_for_without_end(filled, server):
    with connect(server.dsn()) as connection:
        connection.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
        finding = found(filled, "online-store")
    assert finding.state == "fail"
    assert "statement timeout" in finding.what
