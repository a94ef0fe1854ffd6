"""The store in a new feature repository of anyone's, by Feast's own command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from feast import FeatureStore

from espalier.features.feast_store import close
from espalier.features.testing import OURS, online
from espalier.postgres.connect import Connection
from espalier.processes import python_environment

DEFINITIONS = """
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Array, Float64, Int64, String

shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING)
till = Entity(name="till", join_keys=["till_id"], value_type=ValueType.INT64)
KEY = Field(name="shop_id", dtype=String)


def source(table):
    return PostgreSQLSource(
        name=table, table=table, timestamp_field="event", created_timestamp_column="known"
    )


shops = FeatureView(
    name="shops",
    entities=[shop],
    ttl=timedelta(days=30),
    schema=[KEY, Field(name="orders", dtype=Int64), Field(name="tags", dtype=Array(String))],
    source=source("shop_rows"),
)
tills = FeatureView(
    name="tills",
    entities=[shop, till],
    ttl=timedelta(days=30),
    schema=[KEY, Field(name="till_id", dtype=Int64), Field(name="spend", dtype=Float64)],
    source=source("till_rows"),
)
everywhere = FeatureView(
    name="everywhere",
    entities=[],
    ttl=timedelta(days=30),
    schema=[Field(name="rate", dtype=Float64)],
    source=source("everywhere_rows"),
)
service = FeatureService(name="all_of_them", features=[shops, tills, everywhere])
"""
NOW = datetime.now(tz=UTC).replace(microsecond=0)


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


class Repository:
    """A folder with feature_store.yaml and definitions."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder
        settings: dict[str, Any] = {
            "project": "fresh",
            "provider": "local",
            "registry": str(folder / "registry.db"),
            "offline_store": online(
                dsn,
                type="espalier.features.as_known_store.AsKnownOfflineStore",
                db_schema="public",
                sslmode="prefer",
            ),
            "online_store": online(dsn, type=OURS),
            # The view with a list goes the way of Feast's local engine, the others are written here.
            "batch_engine": {
                "type": "espalier.features.in_database_engine.InDatabaseComputeEngine"
            },
            "materialization": {"pull_latest_features": True},
            "entity_key_serialization_version": 3,
        }
        # JSON is YAML.
        (folder / "feature_store.yaml").write_text(json.dumps(settings))
        (folder / "definitions.py").write_text(DEFINITIONS)

    def feast(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "feast.cli.cli", *arguments],
            cwd=self.folder,
            env={**os.environ, **python_environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def read(self, *rows: tuple[str, int]) -> dict[str, list[Any]]:
        store = FeatureStore(repo_path=str(self.folder))
        answer = store.get_online_features(
            store.get_feature_service("all_of_them"),
            [{"shop_id": shop, "till_id": till} for shop, till in rows],
        ).to_dict()
        close(store)
        return {k: v for k, v in answer.items() if k not in ("shop_id", "till_id")}


def test_a_new_repository_by_the_stock_command_line(
    dsn: str, database: Connection, tmp_path: Path
) -> None:
    for table, columns in {
        "shop_rows": "shop_id text, orders bigint, tags text[]",
        "till_rows": "shop_id text, till_id bigint, spend double precision",
        "everywhere_rows": "rate double precision",
    }.items():
        times = "event timestamptz, known timestamptz"
        database.execute(f"CREATE TABLE {table} ({columns}, {times})".encode())

    def add(table: str, *values: Any) -> None:
        marks = ", ".join(["%s"] * len(values))
        database.execute(f"INSERT INTO {table} VALUES ({marks})".encode(), values)

    add("shop_rows", "a", 1, ["x", "y"], ago(5), ago(5))
    add("shop_rows", "a", 0, ["old"], ago(6), ago(6))
    add("till_rows", "a", 1, 0.5, ago(5), ago(5))
    add("till_rows", "a", 2, 0.25, ago(5), ago(5))
    add("everywhere_rows", 7.5, ago(5), ago(5))
    repository = Repository(tmp_path, dsn)

    applied = repository.feast("apply")
    assert all(name in applied for name in ("shops", "tills", "everywhere"))
    repository.feast("materialize", ago(20).isoformat(), ago(4).isoformat())
    assert repository.read(("a", 1), ("a", 2), ("b", 1)) == {
        "orders": [1, 1, None],
        "tags": [["x", "y"], ["x", "y"], None],
        "spend": [0.5, 0.25, None],
        "rate": [7.5, 7.5, 7.5],
    }

    # The next increment takes what happened before it but became known in it.
    add("shop_rows", "b", 2, [], ago(10), ago(3))
    add("shop_rows", "a", 5, ["late and older"], ago(7), ago(3))
    add("till_rows", "a", 1, 0.75, ago(5), ago(3))
    add("everywhere_rows", 8.5, ago(2), ago(2))
    repository.feast("materialize-incremental", ago(1).isoformat())
    assert repository.read(("a", 1), ("a", 2), ("b", 1)) == {
        "orders": [1, 1, 2],
        "tags": [["x", "y"], ["x", "y"], []],
        "spend": [0.75, 0.25, None],
        "rate": [8.5, 8.5, 8.5],
    }

    # A feature goes, and what stays keeps its values.
    changed = DEFINITIONS.replace(', Field(name="tags", dtype=Array(String))', "")
    (tmp_path / "definitions.py").write_text(changed)
    repository.feast("apply")
    assert repository.read(("b", 1))["orders"] == [2]
    columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'fresh_shops'"
    assert sorted(database.execute(columns).fetchall()) == [
        ("created_timestamp",),
        ("event_timestamp",),
        ("orders",),
        ("shop_id",),
    ]

    repository.feast("teardown")
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'online'"
    assert database.execute(tables).fetchall() == []
