from __future__ import annotations

import threading

import psycopg
import pytest

from espalier.errors import DependencyUnreachable, MigrationConflict
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import Migration, migrate, packaged, pending

ONE = Migration(1, "one", "CREATE TABLE one (n int)")
TWO = Migration(2, "two", "CREATE TABLE two (n int)")


@pytest.fixture(scope="module")
def server():
    with embedded.temporary() as running:
        yield running


@pytest.fixture
def dsn(server, request):
    name = request.node.name[:60]
    embedded.create_database(server, name)
    return server.dsn(name)


def tables(dsn):
    with connect(dsn) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {row[0] for row in found}


def test_packaged_migrations_apply_once(dsn):
    with connect(dsn) as connection:
        assert pending(connection) == [m.number for m in packaged()]
        assert migrate(connection) == [m.number for m in packaged()]
        assert pending(connection) == []
        assert migrate(connection) == []


def test_only_what_is_missing_is_applied(dsn):
    with connect(dsn) as connection:
        assert migrate(connection, [ONE]) == [1]
        assert migrate(connection, [ONE, TWO]) == [2]
    assert tables(dsn) == {"one", "two"}


def test_a_failing_migration_leaves_nothing_and_those_before_it_stay(dsn):
    bad = Migration(2, "bad", "CREATE TABLE two (n int); SELECT 1/0")
    with connect(dsn) as connection:
        with pytest.raises(MigrationConflict, match=r"0002_bad\.sql failed: division by zero"):
            migrate(connection, [ONE, bad])
        assert migrate(connection, [ONE, TWO]) == [2]


def test_a_changed_migration_is_named(dsn):
    with connect(dsn) as connection:
        migrate(connection, [ONE])
        changed = Migration(1, "one", ONE.text + " ")
        with pytest.raises(MigrationConflict, match=r"0001_one\.sql was changed"):
            migrate(connection, [changed, TWO])
    assert tables(dsn) == {"one"}


def test_a_database_of_a_newer_release_is_refused(dsn):
    with connect(dsn) as connection:
        migrate(connection, [ONE, TWO])
        with pytest.raises(MigrationConflict, match="has migration 2, which this release lacks"):
            migrate(connection, [ONE])


def test_a_gap_in_the_numbers_is_refused(dsn):
    with connect(dsn) as connection, pytest.raises(MigrationConflict, match=r"\[2\]"):
        migrate(connection, [TWO])


def test_two_programs_at_once_apply_each_migration_once(dsn):
    slow = Migration(1, "slow", "SELECT pg_sleep(0.3); CREATE TABLE one (n int)")
    applied: list[list[int]] = []

    def run():
        with connect(dsn) as connection:
            applied.append(migrate(connection, [slow, TWO]))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == [[], [], [1, 2]]


def test_no_server_is_one_line_without_the_password():
    with pytest.raises(DependencyUnreachable) as caught:
        connect("postgresql://someone:secret-word@127.0.0.1:1/none")
    assert "POSTGRES_HOST" in str(caught.value)
    assert "secret-word" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sessions_are_in_utc(server):
    with connect(server.dsn()) as connection:
        assert connection.execute("SHOW timezone").fetchone() == ("UTC",)


def test_a_wrong_password_is_refused(server):
    wrong = server.dsn().replace(server.password, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)
