from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
from feast import FeatureStore, Field
from feast.types import Float64, Int32

from espalier.errors import ConfigurationError
from espalier.features import feast_store
from espalier.features.conftest import SHOPS, add_versions, day, make_tables
from espalier.features.wide_row_store import WideRowOnlineStore
from espalier.postgres.connect import Connection

ONLINE = (
    "SELECT shop_id, event_timestamp, created_timestamp, orders, spend"
    " FROM online.shops_facts_daily ORDER BY 1"
)


@pytest.fixture
def shops(database: Connection) -> Connection:
    make_tables(database, SHOPS)
    chance = random.Random(11)
    rows = []
    for shop_id in (f"shop-{n}" for n in range(60)):
        for number in range(8):
            for snapshot in range(1, chance.choice([1, 2, 3])):
                orders = chance.choice([None, *range(9)])
                spend = chance.choice([None, math.nan, -0.0, math.inf, chance.random()])
                known = day(number + chance.choice([0, 0, 1, 4]))
                rows.append((shop_id, day(number).date(), orders, spend, known, snapshot))
    add_versions(database, SHOPS, "facts", rows)
    return database


@pytest.fixture
def stores(dsn: str, shops: Connection) -> Iterator[dict[str, FeatureStore]]:
    """Stores that differ in their engine alone."""
    local = feast_store.repo_config(SHOPS, dsn=dsn)
    local.batch_engine_config = "local"
    opened = {
        "local": FeatureStore(config=local),
        "in database": feast_store.open_store(SHOPS, dsn=dsn),
    }
    yield opened
    for store in opened.values():
        feast_store.close(store)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are taken out of the database to be written."""
    sizes: list[int] = []
    write = WideRowOnlineStore.online_write_batch

    def counted(self: WideRowOnlineStore, *arguments: Any, **named: Any) -> None:
        sizes.append(len(named["data"]))
        write(self, *arguments, **named)

    monkeypatch.setattr(WideRowOnlineStore, "online_write_batch", counted)
    return sizes


def test_it_writes_what_the_local_engine_writes(
    stores: dict[str, FeatureStore], shops: Connection, batches: list[int]
) -> None:
    written: dict[str, list[Any]] = {"local": [], "in database": []}
    for name, store in stores.items():
        for start, end in [(0, 4), (4, 6), (1, 3), (5, 7)]:
            store.apply(feast_store.definitions(SHOPS).objects())
            store.materialize(day(start), day(end))
            written[name] += shops.execute(ONLINE).fetchall()
        shops.execute("DROP TABLE online.shops_facts_daily")
        assert len(batches) == 4, "the local engine's, and then no more"
    assert written["in database"] == written["local"]
    assert len(written["local"]) > 180
    assert any(row[4] is None for row in written["local"])


def test_a_type_that_is_not_the_sources_goes_the_local_way(
    stores: dict[str, FeatureStore], shops: Connection, batches: list[int]
) -> None:
    made = feast_store.definitions(SHOPS)
    made.view.features = [Field(name="orders", dtype=Int32), Field(name="spend", dtype=Float64)]
    store = stores["in database"]
    store.apply(made.objects())
    store.materialize(day(0), day(7))
    assert batches == [len(shops.execute(ONLINE).fetchall())]


def test_its_errors_reach_the_caller(stores: dict[str, FeatureStore], shops: Connection) -> None:
    store = stores["in database"]
    store.apply(feast_store.definitions(SHOPS).objects())
    shops.execute("DROP TABLE online.shops_facts_daily")
    with pytest.raises(ConfigurationError, match="feast apply"):
        store.materialize(day(0), day(7))
