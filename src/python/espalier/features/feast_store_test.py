from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from feast import FeatureStore
from psycopg import sql

from espalier.contract import ColumnType
from espalier.errors import ConfigurationError, DependencyUnreachable
from espalier.features import feast_store
from espalier.features.conftest import SHOPS, add_versions, day, make_tables, shop
from espalier.features.point_in_time import features_at, training_set
from espalier.postgres.connect import Connection
from espalier.project import Project

FEATURES = [f"facts_daily:{name}" for name in SHOPS.view.features]
ONLINE = "SELECT shop_id, event_timestamp, orders, spend FROM online.shops_facts_daily ORDER BY 1"


@pytest.fixture
def shops(database: Connection) -> Connection:
    make_tables(database, SHOPS)
    return database


def fact(
    connection: Connection,
    number: int,
    orders: int | None,
    *,
    shop_id: str = "a",
    known: datetime | None = None,
    snapshot: int = 1,
    project: Project = SHOPS,
) -> None:
    known = day(number) if known is None else known
    spend = None if orders is None else orders / 2
    row = (shop_id, day(number).date(), orders, spend, known, snapshot)
    add_versions(connection, project, "facts", [row])


def random_history(connection: Connection, *, late: bool, seed: int = 7) -> None:
    """Facts and outcomes of many shops; with `late`, versions that became known later as well."""
    chance = random.Random(seed)
    facts, outcomes = [], []
    for shop_id in (f"shop-{n}" for n in range(40)):
        for number in range(12):
            if chance.random() < 0.5:
                for snapshot in range(1, chance.choice([2, 2, 3, 4])):
                    delay = chance.choice([0, 0, 1, 5]) if late else 0
                    orders = chance.choice([None, *range(9)])
                    spend = chance.choice([None, chance.random()])
                    known = day(number + delay)
                    facts.append((shop_id, day(number).date(), orders, spend, known, snapshot))
            if chance.random() < 0.3:
                row = (shop_id, day(number).date(), chance.random() < 0.5, day(number + 2), 1)
                outcomes.append(row)
    add_versions(connection, SHOPS, "facts", facts)
    add_versions(connection, SHOPS, "outcomes", outcomes)


@pytest.fixture
def store(dsn: str, shops: Connection) -> Iterator[FeatureStore]:
    feast_store.apply(SHOPS, dsn=dsn)
    opened = feast_store.open_store(SHOPS, dsn=dsn)
    yield opened
    feast_store.close(opened)


def test_definitions_say_what_the_project_declares() -> None:
    made = feast_store.definitions(SHOPS)
    assert made.entity.join_key == "shop_id"
    assert made.view.name == "facts_daily"
    assert made.view.ttl == timedelta(days=3)
    assert [(f.name, str(f.dtype)) for f in made.view.entity_columns] == [("shop_id", "String")]
    assert [(f.name, str(f.dtype)) for f in made.view.features] == [
        ("orders", "Int64"),
        ("spend", "Float64"),
    ]


def test_a_join_key_that_feast_cannot_keep_is_refused() -> None:
    facts, outcomes = SHOPS.tables
    key, *others = facts.columns
    table = replace(facts, columns=(replace(key, type=ColumnType.DATE), *others))
    with pytest.raises(ConfigurationError, match="declare it as TEXT or INTEGER"):
        feast_store.definitions(replace(SHOPS, tables=(table, outcomes)))


def test_a_connection_string_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not a PostgreSQL connection string"):
        feast_store.open_store(SHOPS, dsn="nonsense")


def test_apply_keeps_feasts_tables_in_their_own_schemas(
    dsn: str, database: Connection, shops: Connection
) -> None:
    feast_store.apply(SHOPS, dsn=dsn)
    schemas = database.execute(
        "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename = ANY(%s)",
        [["feature_views", "entities", "shops_facts_daily"]],
    ).fetchall()
    assert sorted(schemas) == [("feast",), ("online",)]
    public = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    assert database.execute(public).fetchall() == []


def test_apply_again_changes_nothing_and_follows_the_declaration(
    dsn: str, store: FeatureStore, shops: Connection
) -> None:
    fact(shops, 1, 1)
    feast_store.materialize(SHOPS, dsn=dsn, end=day(1))
    feast_store.apply(SHOPS, dsn=dsn)
    assert shops.execute(ONLINE).fetchall() == [("a", day(1), 1, 0.5)]
    renamed = shop(name="facts_hourly", features=("spend",))
    feast_store.apply(renamed, dsn=dsn)
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'online'"
    assert shops.execute(tables).fetchall() == [("shops_facts_hourly",)]
    store.refresh_registry()
    assert [view.name for view in store.list_feature_views()] == ["facts_hourly"]
    assert len(store.list_data_sources()) == 1
    feast_store.apply(SHOPS, dsn=dsn)
    assert shops.execute(ONLINE).fetchall() == []


def test_materialize_gives_online_what_the_history_says(
    dsn: str, store: FeatureStore, shops: Connection
) -> None:
    random_history(shops, late=True)
    done = feast_store.materialize(SHOPS, dsn=dsn, end=day(9))
    expected = features_at(shops, SHOPS, when=day(9).date())
    assert 20 < len(expected) == done.rows
    assert done.newest == day(9) == expected["feature_time"].max()
    columns = list(expected.columns)
    online = pd.DataFrame(shops.execute(ONLINE).fetchall(), columns=columns)
    pd.testing.assert_frame_equal(online.astype(expected.dtypes), expected)

    answer = store.get_online_features(FEATURES, [{"shop_id": k} for k in expected["shop_id"]])
    pd.testing.assert_frame_equal(
        answer.to_df()[["shop_id", "orders", "spend"]].astype({"orders": float}),
        expected[["shop_id", "orders", "spend"]],
    )


def test_materialize_sees_only_what_was_known(
    dsn: str, store: FeatureStore, shops: Connection
) -> None:
    fact(shops, 5, 5)
    fact(shops, 5, 666, known=day(6, hours=1), snapshot=2)
    fact(shops, 6, 667, known=day(7))
    fact(shops, 7, 668)
    feast_store.materialize(SHOPS, dsn=dsn, end=day(6))
    assert shops.execute(ONLINE).fetchall() == [("a", day(5), 5, 2.5)]


def test_materialize_later_takes_corrections_and_late_rows(
    dsn: str, store: FeatureStore, shops: Connection
) -> None:
    fact(shops, 5, 5)
    feast_store.materialize(SHOPS, dsn=dsn, end=day(6))
    fact(shops, 5, 50, known=day(7), snapshot=2)
    fact(shops, 4, 40, known=day(7), shop_id="late")
    feast_store.materialize(SHOPS, dsn=dsn, end=day(7))
    assert shops.execute(ONLINE).fetchall() == [("a", day(5), 50, 25), ("late", day(4), 40, 20)]


def test_materialize_never_goes_back(dsn: str, store: FeatureStore, shops: Connection) -> None:
    fact(shops, 5, 5)
    fact(shops, 6, 6)
    feast_store.materialize(SHOPS, dsn=dsn, end=day(6))
    assert feast_store.materialize(SHOPS, dsn=dsn, end=day(5)).newest == day(6)
    assert shops.execute(ONLINE).fetchall() == [("a", day(6), 6, 3)]


def test_materialize_leaves_out_what_is_stale_and_takes_a_day_at_the_edge(
    dsn: str, store: FeatureStore, shops: Connection
) -> None:
    fact(shops, 2, 2, shop_id="edge")
    fact(shops, 1, 1, shop_id="stale")
    done = feast_store.materialize(SHOPS, dsn=dsn, end=day(5))
    assert done.rows == 1
    assert shops.execute(ONLINE).fetchall() == [("edge", day(2), 2, 1)]


def test_materialize_without_rows_or_with_only_nulls(
    dsn: str, store: FeatureStore, shops: Connection
) -> None:
    done = feast_store.materialize(SHOPS, dsn=dsn, end=day(5))
    assert (done.rows, done.newest) == (0, None)
    fact(shops, 5, None)
    done = feast_store.materialize(SHOPS, dsn=dsn, end=datetime(2020, 1, 6))  # noqa: DTZ001  # is UTC
    assert (done.rows, done.newest) == (1, day(5))
    assert shops.execute(ONLINE).fetchall() == [("a", day(5), None, None)]


def test_materialize_and_apply_are_silent(
    dsn: str, shops: Connection, capfd: pytest.CaptureFixture[str]
) -> None:
    fact(shops, 5, 5)
    feast_store.apply(SHOPS, dsn=dsn)
    feast_store.materialize(SHOPS, dsn=dsn, end=day(5))
    assert capfd.readouterr() == ("", "")


def test_neither_leaves_a_connection_open(dsn: str, shops: Connection) -> None:
    feast_store.apply(SHOPS, dsn=dsn)
    feast_store.materialize(SHOPS, dsn=dsn, end=day(5))
    others = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    # A server process ends a moment after its client has closed.
    deadline = time.monotonic() + 10
    while shops.execute(others).fetchone() != (0,):
        assert time.monotonic() < deadline


def test_several_may_apply_at_once(dsn: str, shops: Connection) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: feast_store.apply(SHOPS, dsn=dsn), range(4)))
    versions = shops.execute("SELECT count(*) FROM feast.feature_view_version_history")
    assert versions.fetchone() == (1,)


def test_materialize_before_apply_says_what_to_do(dsn: str, shops: Connection) -> None:
    with pytest.raises(ConfigurationError, match="apply the definitions first"):
        feast_store.materialize(SHOPS, dsn=dsn, end=day(5))


def test_an_unreachable_database_is_told() -> None:
    dsn = "postgresql://espalier:secret@/espalier?host=/nowhere&port=5432"
    for call in (feast_store.apply, lambda p, dsn: feast_store.materialize(p, dsn=dsn, end=day(1))):
        with pytest.raises(DependencyUnreachable, match="POSTGRES_HOST") as caught:
            call(SHOPS, dsn=dsn)
        assert "secret" not in str(caught.value)


def historical(store: FeatureStore, labels: pd.DataFrame) -> pd.DataFrame:
    asked = labels[["shop_id", "label_time"]].rename(columns={"label_time": "event_timestamp"})
    found = store.get_historical_features(asked, FEATURES).to_df()
    found = found.rename(columns={"event_timestamp": "label_time"})
    found = found.sort_values(["label_time", "shop_id"], ignore_index=True)
    found["label_time"] = pd.to_datetime(found["label_time"], utc=True)
    return found.astype({"orders": float, "spend": float})[
        ["shop_id", "label_time", "orders", "spend"]
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("late", [False, True])
def test_a_training_set_equals_feasts_historical_features(
    store: FeatureStore,
    shops: Connection,
    late: bool,  # a parameter of the test
    seed: int,
) -> None:
    random_history(shops, late=late, seed=seed)
    ours = training_set(shops, SHOPS, as_of=date(2021, 1, 1))
    assert len(ours) > 80
    assert ours.attrs["without_features"] > 5
    feasts = historical(store, ours)
    types: dict[str, Any] = {"label_time": feasts["label_time"].dtype}
    pd.testing.assert_frame_equal(ours[list(feasts.columns)].astype(types), feasts)


def test_what_feast_alone_would_leak_into_training(
    dsn: str, store: FeatureStore, shops: Connection
) -> None:
    """Why `as_known_store` is there; when this fails, Feast has changed and it may go."""
    fact(shops, 5, 5)
    fact(shops, 5, 666, known=day(9), snapshot=2)
    add_versions(shops, SHOPS, "outcomes", [("a", day(6).date(), True, day(8), 1)])
    labels = training_set(shops, SHOPS, as_of=date(2021, 1, 1))
    assert labels["orders"].tolist() == [5]
    assert historical(store, labels)["orders"].tolist() == [5]
    plain_config = feast_store.repo_config(SHOPS, dsn=dsn)
    plain_config.offline_config["type"] = "postgres"
    plain = FeatureStore(config=plain_config)
    assert historical(plain, labels)["orders"].tolist() == [666]
    plain.materialize(day(0), day(6))
    assert shops.execute(ONLINE).fetchall() == [("a", day(5), 666, 333)]
    feast_store.close(plain)


def test_incremental_materialize_takes_rows_that_came_late(
    store: FeatureStore, shops: Connection
) -> None:
    fact(shops, 5, 5)
    store.materialize(day(0), day(6))
    fact(shops, 4, 4, known=day(7), shop_id="late")
    fact(shops, 5, 50, known=day(7), snapshot=2)
    fact(shops, 3, 3, known=day(7), shop_id="late and stale")
    store.materialize_incremental(day(7))
    assert shops.execute(ONLINE).fetchall() == [("a", day(5), 50, 25), ("late", day(4), 4, 2)]


def test_times_are_right_where_the_server_is_elsewhere(
    dsn: str, store: FeatureStore, shops: Connection
) -> None:
    shops.execute(
        sql.SQL("ALTER DATABASE {} SET timezone = 'Pacific/Kiritimati'").format(
            sql.Identifier(shops.info.dbname)
        )
    )
    fact(shops, 5, 5)
    fact(shops, 6, 666)
    done = feast_store.materialize(SHOPS, dsn=dsn, end=day(5))
    assert done.newest == datetime(2020, 1, 6, tzinfo=UTC)
    assert shops.execute(ONLINE).fetchall() == [("a", day(5), 5, 2.5)]
    add_versions(shops, SHOPS, "outcomes", [("a", day(5).date(), True, day(8), 1)])
    labels = training_set(shops, SHOPS, as_of=date(2021, 1, 1))
    assert historical(store, labels)["orders"].tolist() == [5]
