"""The exporter answers in time while the database hangs, and tells of it again afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from espalier.monitoring.exported import Metric
from espalier.monitoring.exporter import DatabaseCollector
from espalier.postgres.connect import connect
from espalier.postgres.migrate import migrate
from espalier.serving.testing_database import Database

# Prometheus gives up after 10 s unless it is told otherwise.
PATIENCE = 10


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path) as database:
        with connect(database.dsn) as connection:
            migrate(connection)
        yield database


def collected(collector: DatabaseCollector) -> dict[str, float]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return {sample.name: sample.value for family in registry.collect() for sample in family.samples}


def test_a_database_that_hangs_before_it_is_asked(database: Database) -> None:
    collector = DatabaseCollector(database.dsn)
    assert collected(collector)["espalier_exporter_up"] == 1
    database.hang()
    began = time.monotonic()
    told = collected(collector)
    assert time.monotonic() - began < PATIENCE
    assert told["espalier_exporter_up"] == 0
    assert {name.startswith("espalier_exporter_") for name in told} == {True}
    database.go_on()
    assert collected(collector)["espalier_exporter_up"] == 1


def test_a_database_that_hangs_at_a_query(database: Database) -> None:
    metrics = (
        Metric("good", "", (), "SELECT 7"),
        Metric("slow", "", (), "SELECT 7 FROM pg_sleep(30)"),
    )
    collector = DatabaseCollector(
        database.dsn, metrics=metrics, statement_timeout_ms=60_000, scrape_seconds=5
    )

    def hang() -> None:
        asked = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        while not database.execute(asked):
            time.sleep(0.01)
        database.hang()

    hangs = threading.Thread(target=hang)
    hangs.start()
    began = time.monotonic()
    told = collected(collector)
    assert time.monotonic() - began < PATIENCE
    hangs.join()
    assert told["espalier_exporter_up"] == 0
    # Half of an answer could be taken for all of it.
    assert "espalier_good" not in told
    database.go_on()
    again = DatabaseCollector(database.dsn, metrics=metrics[:1])
    assert collected(again)["espalier_good"] == 7
