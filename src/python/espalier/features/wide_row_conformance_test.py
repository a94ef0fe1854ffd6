"""The cases of Feast's own tests of online stores, written anew against ours.

From `sdk/python/tests/integration/online_store` of feast-dev/feast:

- test_universal_online.py: write_to_online_store, write_to_online_store_event_check,
  entity_ttl_online_store (Redis' `key_ttl_seconds` there, `hide_expired` here), online_retrieval
  with both kinds of feature names (several views, composite keys, an entityless view, on-demand
  views with and without request data, missing entities, missing request data, feature services,
  shadow entities, a collision of names), online_retrieval_with_event_timestamps,
  online_list_retrieval, online_store_cleanup, and each of them asynchronously where Feast has it
- test_universal_online_types.py: feature_get_online_features_types_match
- test_push_features_to_online_store.py: push_features_and_read, and asynchronously
- test_python_feature_server.py: get_online_features, push, health
- test_feature_service_read.py
- test_postgres_batched_read.py: missing_entities, views_on_different_entities, large_request (that
  one query reads several views is Feast's own store's affair; ours asks one a view)

From `sdk/python/tests/unit/online_store`:

- test_online_retrieval.py: online, online_to_df (that a registry file is cached is no store's case)
- test_online_writes.py: valid, mixed, empty and all-null frames and inputs, five views of which one
  is empty, on-demand views computed on write

Do not apply: retrieve_online_documents and every other case of vector search (this store has no
vector index), *_versioning (Feast names the stores that may keep versions of a view), the Go server
(Feast has dropped it), precomputed vectors (Feast makes no table for them), rate limits and the
remote store (they wrap any store), test_empty_entity_rows.py (Feast 0.67 refuses such a request
before it asks a store), and tests of the other stores' own settings.
"""

from __future__ import annotations

import asyncio
import io
import random
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    PushSource,
    RepoConfig,
    RequestSource,
    ValueType,
)
from feast.errors import (
    FeatureNameCollisionError,
    FeatureViewNotFoundException,
    RequestDataNotFoundInEntityRowsException,
)
from feast.feature_server import get_app
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.on_demand_feature_view import OnDemandFeatureView, on_demand_feature_view
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.types import (
    Array,
    Bool,
    Bytes,
    FeastType,
    Float32,
    Float64,
    Int32,
    Int64,
    PdfBytes,
    String,
    UnixTimestamp,
)
from psycopg import sql
from starlette.testclient import TestClient

from espalier.features.feast_store import close
from espalier.features.testing import OURS, online
from espalier.postgres.connect import Connection

NOW = datetime.now(tz=UTC).replace(microsecond=0)
DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
CUSTOMER = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
LOCATION = Entity(name="location", join_keys=["location_id"], value_type=ValueType.INT64)
CHUNK = Entity(name="chunk", join_keys=["chunk_id"], value_type=ValueType.STRING)
KEYS: dict[str, tuple[Entity, FeastType, str]] = {
    "driver_id": (DRIVER, Int64, "bigint"),
    "customer_id": (CUSTOMER, String, "text"),
    "location_id": (LOCATION, Int64, "bigint"),
}
SQL_TYPES: dict[FeastType, str] = {
    Int32: "integer",
    Int64: "bigint",
    Float32: "real",
    Float64: "double precision",
    Bool: "boolean",
    String: "text",
    UnixTimestamp: "timestamptz",
}


def config(dsn: str, folder: Path, **options: Any) -> RepoConfig:
    """What a feature_store.yaml says that changes nothing but the online store's type."""
    return RepoConfig(
        project="conformance",
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store=online(dsn, type="postgres", sslmode="prefer"),
        online_store=online(dsn, type=OURS, **options),
        # Feast's engine forgets an entityless view's key without it, for any store.
        materialization={"pull_latest_features": True},
        entity_key_serialization_version=3,
    )


@pytest.fixture
def store(dsn: str, tmp_path: Path) -> Iterator[FeatureStore]:
    opened = FeatureStore(config=config(dsn, tmp_path))
    yield opened
    close(opened)


def source(database: Connection, name: str, columns: dict[str, str], rows: list[Any]) -> Any:
    """A table with these columns and both timestamps, and Feast's source of it."""
    columns = {**columns, "event_timestamp": "timestamptz", "created": "timestamptz"}
    table = sql.Identifier("public", name)
    database.execute(
        sql.SQL("CREATE TABLE {} ({})").format(
            table,
            sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(c), sql.SQL(kind))
                for c, kind in columns.items()
            ),
        )
    )
    with database.cursor() as cursor:
        cursor.executemany(
            sql.SQL("INSERT INTO {} VALUES ({})").format(
                table, sql.SQL(", ").join([sql.Placeholder()] * len(columns))
            ),
            rows,
        )
    return PostgreSQLSource(
        name=f"{name}_source",
        query=f"SELECT * FROM public.{name}",  # a name of this test's
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )


def view(
    name: str,
    keys: list[str],
    features: dict[str, FeastType],
    data_source: Any,
    ttl: timedelta = timedelta(days=365),
) -> FeatureView:
    return FeatureView(
        name=name,
        entities=[KEYS[key][0] for key in keys],
        ttl=ttl,
        schema=[
            *(Field(name=key, dtype=KEYS[key][1]) for key in keys),
            *(Field(name=feature, dtype=dtype) for feature, dtype in features.items()),
        ],
        source=data_source,
    )


class Universe:
    """Feast's universal feature views, over random rows of which the newest is known."""

    def __init__(self, database: Connection) -> None:
        self.database = database
        self.chance = random.Random(3)
        self.newest: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
        driver = self.view("driver_stats", ["driver_id"], conv_rate=Float32, avg_daily_trips=Int32)
        self.views = [
            driver,
            self.view("customer_profile", ["customer_id"], current_balance=Float64, trips=Int64),
            self.view("location_stats", ["location_id"], temperature=Int32),
            self.view("order", ["driver_id", "customer_id"], order_is_success=Int32),
            self.view("global_stats", [], num_rides=Int32, avg_ride_length=Float64),
        ]
        request = RequestSource(name="to_add", schema=[Field(name="val_to_add", dtype=Int32)])

        @on_demand_feature_view(  # type: ignore[untyped-decorator]  # theirs is not annotated
            sources=[driver, request],
            schema=[
                Field(name="conv_rate_plus_100", dtype=Float64),
                Field(name="conv_rate_plus_val_to_add", dtype=Float64),
            ],
            mode="pandas",
        )
        def conv_rate_plus_100(inputs: pd.DataFrame) -> pd.DataFrame:
            frame = pd.DataFrame()
            frame["conv_rate_plus_100"] = inputs["conv_rate"] + 100
            frame["conv_rate_plus_val_to_add"] = inputs["conv_rate"] + inputs["val_to_add"]
            return frame

        self.on_demand: OnDemandFeatureView = conv_rate_plus_100
        location = self.views[2]
        self.service = FeatureService(
            name="convrate_plus100", features=[driver[["conv_rate"]], self.on_demand]
        )
        self.shadows = FeatureService(
            name="entity_mapping",
            features=[
                location.with_name("origin").with_join_key_map({"location_id": "origin_id"}),
                location.with_name("destination").with_join_key_map(
                    {"location_id": "destination_id"}
                ),
            ],
        )
        self.objects = [
            DRIVER,
            CUSTOMER,
            LOCATION,
            *self.views,
            self.on_demand,
            self.service,
            self.shadows,
        ]

    def value(self, dtype: FeastType) -> Any:
        if dtype in (Float32, Float64):
            # Of a 32-bit float's precision.
            return self.chance.randrange(1000) / 128
        return self.chance.randrange(100)

    def view(self, name: str, keys: list[str], /, **features: FeastType) -> FeatureView:
        every = {"driver_id": range(1, 9), "customer_id": "abcdefgh", "location_id": range(1, 6)}
        entities: list[tuple[Any, ...]] = [()]
        for key in keys:
            entities = [(*entity, value) for entity in entities for value in every[key]]
        rows, newest = [], {}
        for entity in entities:
            for number in range(4):
                values = {feature: self.value(dtype) for feature, dtype in features.items()}
                event = NOW - timedelta(days=4 - number)
                rows.append((*entity, *values.values(), event, event))
                newest[entity] = {**values, "event_timestamp": event}
        self.chance.shuffle(rows)
        self.newest[name] = newest
        columns = {key: KEYS[key][2] for key in keys}
        columns |= {feature: SQL_TYPES[dtype] for feature, dtype in features.items()}
        return view(name, keys, features, source(self.database, name, columns, rows))


@pytest.fixture
def universe(database: Connection) -> Universe:
    return Universe(database)


def materialize(store: FeatureStore) -> None:
    with redirect_stdout(io.StringIO()):
        store.materialize(NOW - timedelta(days=10), NOW + timedelta(days=1))


def features_of(
    store: FeatureStore,
    features: Any,
    rows: list[dict[str, Any]],
    *,
    full_feature_names: bool = False,
) -> dict[str, list[Any]]:
    """The answer, which must be the same synchronously and not."""
    response = store.get_online_features(features, rows, full_feature_names)

    async def again() -> Any:
        answer = await store.get_online_features_async(features, rows, full_feature_names)
        await store.provider.online_store.close()
        return answer

    assert asyncio.run(again()).proto == response.proto
    answered: dict[str, list[Any]] = response.to_dict()
    return answered


REFERENCES = [
    "driver_stats:conv_rate",
    "driver_stats:avg_daily_trips",
    "customer_profile:current_balance",
    "customer_profile:trips",
    "conv_rate_plus_100:conv_rate_plus_100",
    "conv_rate_plus_100:conv_rate_plus_val_to_add",
    "order:order_is_success",
    "global_stats:num_rides",
    "global_stats:avg_ride_length",
]


@pytest.mark.parametrize("full_feature_names", [True, False])
def test_online_retrieval(
    store: FeatureStore,
    universe: Universe,
    full_feature_names: bool,  # a parameter of the test
) -> None:
    store.apply(universe.objects)
    materialize(store)
    rows = [
        {"driver_id": d, "customer_id": c, "val_to_add": 50}
        for d, c in [(8, "a"), (1, "h"), (3, "c"), (1, "h"), (3, "a")]
    ]

    def named(reference: str) -> str:
        return reference.replace(":", "__") if full_feature_names else reference.split(":")[1]

    answer = features_of(store, REFERENCES, rows, full_feature_names=full_feature_names)
    assert set(answer) == {"driver_id", "customer_id", *map(named, REFERENCES)}
    for number, row in enumerate(rows):
        d, c = row["driver_id"], row["customer_id"]
        assert (answer["driver_id"][number], answer["customer_id"][number]) == (d, c)
        driver = universe.newest["driver_stats"][d,]
        customer = universe.newest["customer_profile"][c,]
        everyone = universe.newest["global_stats"][()]
        assert [answer[named(reference)][number] for reference in REFERENCES] == [
            driver["conv_rate"],
            driver["avg_daily_trips"],
            customer["current_balance"],
            customer["trips"],
            driver["conv_rate"] + 100,
            driver["conv_rate"] + 50,
            universe.newest["order"][d, c]["order_is_success"],
            everyone["num_rides"],
            everyone["avg_ride_length"],
        ]

    # On-demand features come without their inputs being asked for.
    fewer = features_of(store, REFERENCES[1:], rows, full_feature_names=full_feature_names)
    assert fewer == {k: v for k, v in answer.items() if k != named(REFERENCES[0])}

    missing = [{"driver_id": 0, "customer_id": "nobody", "val_to_add": 100}]
    nothing = features_of(store, REFERENCES, missing, full_feature_names=full_feature_names)
    for reference in REFERENCES:
        if not reference.startswith(("conv_rate_plus", "global_stats")):
            assert nothing[named(reference)] == [None]

    with pytest.raises(RequestDataNotFoundInEntityRowsException):
        store.get_online_features(REFERENCES, [{"driver_id": 1, "customer_id": "a"}])

    # By a feature service.
    served = features_of(store, universe.service, rows, full_feature_names=full_feature_names)
    assert set(served) == {
        "driver_id",
        "customer_id",
        *map(named, [REFERENCES[0], *REFERENCES[4:6]]),
    }
    for reference in REFERENCES[0], *REFERENCES[4:6]:
        assert served[named(reference)] == answer[named(reference)]


def test_shadow_entities(store: FeatureStore, universe: Universe) -> None:
    store.apply(universe.objects)
    materialize(store)
    pairs = [{"origin_id": o, "destination_id": d} for o, d in [(1, 2), (5, 1), (2, 2)]]
    answer = features_of(store, universe.shadows, pairs, full_feature_names=True)
    newest = universe.newest["location_stats"]
    assert answer == {
        "origin_id": [1, 5, 2],
        "destination_id": [2, 1, 2],
        "origin__temperature": [newest[o,]["temperature"] for o in (1, 5, 2)],
        "destination__temperature": [newest[d,]["temperature"] for d in (2, 1, 2)],
    }
    with pytest.raises(FeatureNameCollisionError):
        store.get_online_features(universe.shadows, pairs, full_feature_names=False)


def test_online_retrieval_with_event_timestamps(store: FeatureStore, universe: Universe) -> None:
    store.apply(universe.objects)
    frame = pd.DataFrame(
        {
            "driver_id": [1, 2],
            "conv_rate": [0.5, 0.3],
            "avg_daily_trips": [4, 5],
            "event_timestamp": [pd.Timestamp(1646263500, unit="s", tz="UTC")] * 2,
            "created": [pd.Timestamp(1646263600, unit="s", tz="UTC")] * 2,
        }
    )
    store.write_to_online_store("driver_stats", frame)
    rows = [{"driver_id": 1}, {"driver_id": 2}]
    frame = store.get_online_features(["driver_stats:avg_daily_trips"], rows).to_df(
        include_event_timestamps=True
    )
    assert frame.drop(columns="driver_id__ts").to_dict("list") == {
        "driver_id": [1, 2],
        "avg_daily_trips": [4, 5],
        "avg_daily_trips__ts": [1646263500, 1646263500],
    }


def test_write_to_online_store_event_check(store: FeatureStore, database: Connection) -> None:
    hour_ago, latest = NOW - timedelta(hours=1), NOW + timedelta(seconds=1)
    rows = [(k, t, e, e) for k, t, e in [(1, "OLD", hour_ago), (5, "SRC5", NOW), (8, "SRC8", NOW)]]
    columns = {"driver_id": "bigint", "string_col": "text"}
    data_source = source(database, "events", columns, rows)
    store.apply([DRIVER, view("v", ["driver_id"], {"string_col": String}, data_source)])

    def write(*values: tuple[int, str, datetime]) -> None:
        columns = ["driver_id", "string_col", "event_timestamp"]
        frame = pd.DataFrame(values, columns=columns)
        store.write_to_online_store("v", frame.assign(created=frame["event_timestamp"]))

    def read() -> list[Any]:
        return features_of(store, ["v:string_col"], [{"driver_id": k} for k in (1, 5, 8)])[
            "string_col"
        ]

    write((1, "now", NOW))
    assert read() == ["now", None, None]
    write((1, "late", hour_ago), (5, "late", hour_ago), (8, "late", hour_ago))
    assert read() == ["now", "late", "late"]
    write((1, "latest", latest))
    assert read() == ["latest", "late", "late"]
    materialize(store)
    assert read() == ["latest", "SRC5", "SRC8"]


@pytest.mark.parametrize("hide_expired", [True, False])
def test_entity_ttl_online_store(
    dsn: str,
    database: Connection,
    tmp_path: Path,
    hide_expired: bool,  # a parameter of the test
) -> None:
    store = FeatureStore(config=config(dsn, tmp_path, hide_expired=hide_expired))
    data_source = source(database, "s", {"driver_id": "bigint", "n": "bigint"}, [])
    stale = view("stale", ["driver_id"], {"n": Int64}, data_source, ttl=timedelta(days=1))
    endless = view("endless", ["driver_id"], {"n": Int64}, data_source, ttl=timedelta(0))
    store.apply([DRIVER, stale, endless])
    frame = pd.DataFrame(
        {
            "driver_id": [1, 2],
            "n": [10, 20],
            "event_timestamp": [NOW - timedelta(days=2), NOW - timedelta(hours=23)],
            "created": [NOW] * 2,
        }
    )
    for name in ("stale", "endless"):
        store.write_to_online_store(name, frame)
    rows = [{"driver_id": n} for n in (1, 2, 3)]
    features = ["stale:n", "endless:n"]
    features_of(store, features, rows, full_feature_names=True)
    response = store.get_online_features(features, rows, full_feature_names=True)
    assert response.to_dict() == {
        "driver_id": [1, 2, 3],
        "stale__n": [None if hide_expired else 10, 20, None],
        "endless__n": [10, 20, None],
    }
    present, missing = FieldStatus.PRESENT, FieldStatus.NOT_FOUND
    expired = missing if hide_expired else FieldStatus.OUTSIDE_MAX_AGE
    statuses = {
        name: list(result.statuses)
        for name, result in zip(
            response.proto.metadata.feature_names.val, response.proto.results, strict=True
        )
    }
    assert statuses["stale__n"] == [expired, present, missing]
    assert statuses["endless__n"] == [present, present, missing]
    close(store)


TYPES: dict[FeastType, tuple[str, list[Any]]] = {
    Int32: ("integer", [1, -(2**31), 2**31 - 1]),
    # Where a column has a null, Feast's local engine takes integers for floats.
    Int64: ("bigint", [1, -(2**53), 2**53]),
    Float32: ("real", [0.5, -1e30, 0.1]),
    Float64: ("double precision", [0.5, -1e300, 0.1]),
    String: ("text", ["", "ü", "a\tb\n"]),
    Bool: ("boolean", [True, False, True]),
    Bytes: ("bytea", [b"", b"\x00\xff", b"x"]),
    UnixTimestamp: ("timestamptz", [NOW, datetime(1969, 7, 20, tzinfo=UTC), NOW]),
}
PYTHON_TYPES: dict[FeastType, type] = {
    Int32: int,
    Int64: int,
    Float32: float,
    Float64: float,
    String: str,
    Bool: bool,
    Bytes: bytes,
    UnixTimestamp: datetime,
}


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("engine", ["local", "in database"])
def test_feature_get_online_features_types_match(
    dsn: str, tmp_path: Path, database: Connection, dtype: FeastType, engine: str
) -> None:
    made = config(dsn, tmp_path)
    if engine == "in database":
        made.batch_engine_config = {
            "type": "espalier.features.in_database_engine.InDatabaseComputeEngine"
        }
    store = FeatureStore(config=made)
    sql_type, values = TYPES[dtype]
    rows = [(n, value, NOW, NOW) for n, value in enumerate([*values, None])]
    data_source = source(database, "t", {"driver_id": "bigint", "value": sql_type}, rows)
    store.apply([DRIVER, view("v", ["driver_id"], {"value": dtype}, data_source)])
    materialize(store)
    asked = [{"driver_id": n} for n in range(5)]
    answer = features_of(store, ["v:value"], asked)["value"]
    assert answer[:3] == (pytest.approx(values, rel=1e-7) if dtype is Float32 else values)
    assert answer[3:] == [None, None]
    assert all(type(value) is PYTHON_TYPES[dtype] for value in answer[:3])
    close(store)


@pytest.mark.parametrize("dtype", [t for t in TYPES if t is not UnixTimestamp], ids=str)
def test_online_list_retrieval(store: FeatureStore, database: Connection, dtype: FeastType) -> None:
    sql_type, values = TYPES[dtype]
    lists = [values, values[:1], []]
    rows = [(n, value, NOW, NOW) for n, value in enumerate([*lists, None])]
    data_source = source(database, "t", {"driver_id": "bigint", "value": f"{sql_type}[]"}, rows)
    store.apply([DRIVER, view("v", ["driver_id"], {"value": Array(dtype)}, data_source)])
    materialize(store)
    answer = features_of(store, ["v:value"], [{"driver_id": n} for n in range(5)])["value"]
    for found, expected in zip(answer[:3], lists, strict=True):
        assert isinstance(found, list)
        assert found == (pytest.approx(expected, rel=1e-7) if dtype is Float32 else expected)
    assert answer[3:] == [None, None]


def test_online_store_cleanup(
    store: FeatureStore, universe: Universe, database: Connection
) -> None:
    rows = [(d, d / 8, NOW, NOW) for d in range(1, 9)]
    columns = {"driver_id": "bigint", "value": "double precision"}
    simple = view("simple", ["driver_id"], {"value": Float64}, source(database, "s", columns, rows))
    driver = universe.views[0]
    asked = [{"driver_id": d} for d in range(1, 9)]
    values = [d / 8 for d in range(1, 9)]
    store.apply([DRIVER, simple, driver])
    materialize(store)
    assert features_of(store, ["simple:value"], asked)["value"] == values
    store.apply([simple], objects_to_delete=[driver], partial=False)
    assert features_of(store, ["simple:value"], asked)["value"] == values
    store.apply([], objects_to_delete=[simple], partial=False)
    store.apply([simple])
    assert features_of(store, ["simple:value"], asked)["value"] == [None] * 8
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'online'"
    assert database.execute(tables).fetchall() == [("conformance_simple",)]
    store.teardown()
    assert database.execute(tables).fetchall() == []


def pushable(database: Connection) -> FeatureView:
    columns = {"location_id": "bigint", "temperature": "integer"}
    push = PushSource(name="location_push", batch_source=source(database, "loc", columns, []))
    return view("pushable_location_stats", ["location_id"], {"temperature": Int32}, push)


def readings(*temperatures: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "location_id": range(1, len(temperatures) + 1),
            "temperature": temperatures,
            "event_timestamp": pd.Timestamp(NOW),
            "created": pd.Timestamp(NOW),
        }
    )


def test_push_features_and_read(store: FeatureStore, database: Connection) -> None:
    store.apply([LOCATION, pushable(database)])
    store.push("location_push", readings(4))
    asked = [{"location_id": n} for n in (1, 2)]
    features = ["pushable_location_stats:temperature"]
    assert features_of(store, features, asked)["temperature"] == [4, None]
    asyncio.run(store.push_async("location_push", readings(5, 6)))
    assert features_of(store, features, asked)["temperature"] == [5, 6]


def test_python_feature_server(store: FeatureStore, database: Connection) -> None:
    """Feast's server asks the store whether to read and write asynchronously."""
    store.apply([LOCATION, pushable(database)])
    assert store.provider.async_supported.online.read
    assert store.provider.async_supported.online.write
    with TestClient(get_app(store)) as server:
        frame = readings(4).astype({"event_timestamp": str, "created": str})
        pushed = server.post(
            "/push",
            json={
                "push_source_name": "location_push",
                "df": frame.to_dict("list"),
                "to": "online",
            },
        )
        assert pushed.status_code == 200, pushed.text
        asked = {
            "features": ["pushable_location_stats:temperature"],
            "entities": {"location_id": [1, 2]},
        }
        for _ in range(3):
            answered = server.post("/get-online-features", json=asked)
            assert answered.status_code == 200, answered.text
            temperature = dict(
                zip(
                    answered.json()["metadata"]["feature_names"],
                    answered.json()["results"],
                    strict=True,
                )
            )["temperature"]
            assert temperature["values"] == [4, None]
            assert temperature["statuses"] == ["PRESENT", "NOT_FOUND"]
        assert server.get("/health").status_code == 200


def test_feature_service_read(store: FeatureStore, database: Connection) -> None:
    locations = pushable(database)
    store.apply([LOCATION, locations, FeatureService(name="service", features=[locations])])
    store.write_to_online_store("pushable_location_stats", readings(7))
    found = features_of(store, store.get_feature_service("service"), [{"location_id": 1}])
    assert found == {"location_id": [1], "temperature": [7]}


def test_online_and_online_to_df(store: FeatureStore, universe: Universe) -> None:
    store.apply(universe.objects)
    materialize(store)
    features = ["driver_stats:avg_daily_trips", "customer_profile:trips", "order:order_is_success"]
    rows = [{"driver_id": d, "customer_id": c} for d, c in [(3, "c"), (2, "b"), (1, "a")]]
    newest = universe.newest
    assert store.get_online_features(features, rows).to_df().to_dict("list") == {
        "driver_id": [3, 2, 1],
        "customer_id": ["c", "b", "a"],
        "avg_daily_trips": [newest["driver_stats"][d,]["avg_daily_trips"] for d in (3, 2, 1)],
        "trips": [newest["customer_profile"][c,]["trips"] for c in "cba"],
        "order_is_success": [
            newest["order"][d, c]["order_is_success"] for d, c in [(3, "c"), (2, "b"), (1, "a")]
        ],
    }
    with pytest.raises(FeatureViewNotFoundException):
        store.get_online_features(["driver_stats_bad:trips"], [{"driver_id": 1}])


def test_a_number_is_a_key_of_text_too(store: FeatureStore, database: Connection) -> None:
    columns = {"customer_id": "text", "n": "bigint"}
    table = source(database, "c", columns, [("5", 7, NOW, NOW)])
    store.apply([CUSTOMER, view("v", ["customer_id"], {"n": Int64}, table)])
    materialize(store)
    assert features_of(store, ["v:n"], [{"customer_id": 5}, {"customer_id": 6}])["n"] == [7, None]


def test_missing_entities_and_views_on_different_entities(
    store: FeatureStore, database: Connection
) -> None:
    columns = {"driver_id": "bigint", "n": "bigint"}
    full = [(d, d, NOW, NOW) for d in (1, 2, 3)]
    views = [
        view("full", ["driver_id"], {"n": Int64}, source(database, "full_rows", columns, full)),
        view(
            "sparse",
            ["driver_id"],
            {"n": Int64},
            source(database, "sparse_rows", columns, full[1:2]),
        ),
        view(
            "customers",
            ["customer_id"],
            {"n": Int64},
            source(
                database,
                "customer_rows",
                {"customer_id": "text", "n": "bigint"},
                [("a", 70, NOW, NOW), ("b", 71, NOW, NOW)],
            ),
        ),
    ]
    store.apply([DRIVER, CUSTOMER, *views])
    materialize(store)
    rows = [{"driver_id": d, "customer_id": c} for d, c in [(1, "a"), (2, "a"), (3, "b")]]
    answer = features_of(
        store, ["full:n", "sparse:n", "customers:n"], rows, full_feature_names=True
    )
    assert answer["full__n"] == [1, 2, 3]
    assert answer["sparse__n"] == [None, 2, None]
    assert answer["customers__n"] == [70, 70, 71]


def test_large_requests(store: FeatureStore, database: Connection) -> None:
    columns = {"driver_id": "bigint", "n": "bigint"}
    data_source = source(database, "many", columns, [])
    database.execute(
        "INSERT INTO many SELECT i, i * 2, now(), now() FROM generate_series(1, 20000) AS i"
    )
    store.apply([DRIVER, view("v", ["driver_id"], {"n": Int64}, data_source)])
    materialize(store)
    ids = random.Random(1).choices(range(1, 25_000), k=20_000)
    answer = store.get_online_features(["v:n"], {"driver_id": ids}).to_dict()
    assert answer["n"] == [d * 2 if d <= 20_000 else None for d in ids]


def drivers(**columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"driver_id": [1001, 1002, 1003], **columns})
    return frame.assign(event_timestamp=pd.Timestamp(NOW), created=pd.Timestamp(NOW))


NULLS = [None, None, None]


@pytest.mark.parametrize(
    ("written", "warns"),
    [
        ({"df": pd.DataFrame()}, "Cannot write empty dataframe"),
        ({"inputs": {"driver_id": [], "conv_rate": []}}, "Cannot write empty dataframe"),
        ({"df": drivers(conv_rate=NULLS, avg_daily_trips=NULLS)}, "empty feature columns"),
        ({"df": drivers(conv_rate=[0.5, None, 0.75], avg_daily_trips=[10, 12, None])}, None),
        ({"inputs": drivers(conv_rate=[0.5] * 3, avg_daily_trips=[1] * 3).to_dict("list")}, None),
    ],
)
@pytest.mark.parametrize("asynchronously", [True, False])
def test_online_writes(
    store: FeatureStore,
    universe: Universe,
    written: dict[str, Any],
    warns: str | None,
    asynchronously: bool,  # a parameter of the test
) -> None:
    store.apply(universe.objects)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if asynchronously:
            asyncio.run(store.write_to_online_store_async("driver_stats", **written))
        else:
            store.write_to_online_store("driver_stats", **written)
    told = [str(w.message) for w in caught]
    asked = [{"driver_id": d} for d in (1001, 1002, 1003)]
    answer = features_of(store, REFERENCES[:2], asked)
    if warns is not None:
        assert any(warns in message for message in told)
        assert answer["conv_rate"] == NULLS
    else:
        given = pd.DataFrame(written.get("df", written.get("inputs"))).astype(object)
        expected = given.where(given.notna(), None)
        for feature in ("conv_rate", "avg_daily_trips"):
            assert answer[feature] == expected[feature].tolist()


def test_materialize_with_one_empty_view_of_five(store: FeatureStore, database: Connection) -> None:
    columns = {"driver_id": "bigint", "n": "bigint"}
    views = [
        view(
            f"v{i}",
            ["driver_id"],
            {"n": Int64},
            source(database, f"rows{i}", columns, [(1, i, NOW, NOW)] if i != 1 else []),
        )
        for i in range(5)
    ]
    store.apply([DRIVER, *views])
    materialize(store)
    names = [f"v{i}:n" for i in range(5)]
    answer = features_of(store, names, [{"driver_id": 1}], full_feature_names=True)
    assert [answer[f"v{i}__n"] for i in range(5)] == [[0], [None], [2], [3], [4]]


def test_transform_on_write(store: FeatureStore) -> None:
    pdf = RequestSource(
        name="pdf", schema=[Field(name="chunk_id", dtype=String), Field(name="raw", dtype=PdfBytes)]
    )

    @on_demand_feature_view(  # type: ignore[untyped-decorator]  # theirs is not annotated
        entities=[CHUNK],
        sources=[pdf],
        schema=[
            Field(name="chunk_id", dtype=String),
            Field(name="text", dtype=String),
            Field(name="vector", dtype=Array(Float32)),
        ],
        mode="python",
        write_to_online_store=True,
        singleton=True,
    )
    def chunks(inputs: dict[str, Any]) -> dict[str, Any]:
        return {
            "chunk_id": ["chunk-1", "chunk-2"],
            "text": ["one", "two"],
            "vector": [[0.5] * 10, [0.25] * 10],
        }

    store.apply([CHUNK, chunks])
    frame = pd.DataFrame([{"chunk_id": "doc", "raw": b"%PDF"}])
    store.write_to_online_store("chunks", frame)
    answer = features_of(
        store, ["chunks:text", "chunks:vector"], [{"chunk_id": "chunk-2"}, {"chunk_id": "x"}]
    )
    assert answer["text"] == ["two", None]
    assert answer["vector"] == [[0.25] * 10, None]


def test_concurrent_async_reads_share_one_connection(
    store: FeatureStore, universe: Universe, database: Connection
) -> None:
    store.apply(universe.objects)
    materialize(store)

    async def ask(driver: int) -> Any:
        rows = [{"driver_id": driver, "customer_id": "a"}]
        return await store.get_online_features_async(REFERENCES[:4], rows)

    counted = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND query LIKE 'SELECT %FROM \"online\"%'"
    )

    async def many() -> list[Any]:
        answers = await asyncio.gather(*(ask(1 + n % 8) for n in range(64)))
        assert database.execute(counted).fetchone() == (1,)
        await store.provider.online_store.close()
        return answers

    for number, answer in enumerate(asyncio.run(many())):
        expected = universe.newest["driver_stats"][1 + number % 8,]["conv_rate"]
        assert answer.to_dict()["conv_rate"] == [expected]
