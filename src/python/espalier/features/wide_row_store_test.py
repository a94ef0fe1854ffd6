from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pandas as pd
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, RepoConfig, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Int64List, Value
from feast.types import (
    Array,
    Bool,
    Bytes,
    FeastType,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    UnixTimestamp,
)
from psycopg.conninfo import conninfo_to_dict

from espalier.errors import BadData, ConfigurationError, DependencyUnreachable
from espalier.features.conftest import day
from espalier.features.feast_store import close
from espalier.features.wide_row_store import WideRowOnlineStore
from espalier.features.wide_row_table import Row
from espalier.postgres.connect import Connection

ALL_TYPES: dict[str, FeastType] = {
    "i32": Int32,
    "i64": Int64,
    "f32": Float32,
    "f64": Float64,
    "text": String,
    "flag": Bool,
    "raw": Bytes,
    "moment": UnixTimestamp,
    "several": Array(Int64),
}
ONE_OF_EACH = {
    "i32": Value(int32_val=-(2**31)),
    "i64": Value(int64_val=2**63 - 1),
    "f32": Value(float_val=0.1),
    "f64": Value(double_val=0.1),
    "text": Value(string_val="ünï\t'\\"),
    "flag": Value(bool_val=False),
    "raw": Value(bytes_val=b"\x00\xff"),
    "moment": Value(unix_timestamp_val=-1),
    "several": Value(int64_list_val=Int64List(val=[3, 1, 2])),
}


def online(dsn: str, **kind: Any) -> dict[str, Any]:
    parts = conninfo_to_dict(dsn)
    return {
        **kind,
        "host": parts["host"],
        "port": int(parts["port"] or 0),
        "database": parts["dbname"],
        "user": parts["user"],
        "password": parts["password"],
    }


def config(dsn: str) -> RepoConfig:
    return RepoConfig(
        project="p",
        registry="unused.db",
        online_store=online(dsn, type="espalier.features.wide_row_store.WideRowOnlineStore"),
    )


def view(
    types: dict[str, FeastType], keys: dict[str, ValueType] | None = None, name: str = "v"
) -> FeatureView:
    keys = keys or {"k": ValueType.STRING}
    dtypes = {ValueType.STRING: String, ValueType.INT64: Int64}
    return FeatureView(
        name=name,
        entities=[Entity(name=key, join_keys=[key], value_type=kind) for key, kind in keys.items()],
        schema=[
            *(Field(name=key, dtype=dtypes[kind]) for key, kind in keys.items()),
            *(Field(name=feature, dtype=dtype) for feature, dtype in types.items()),
        ],
        source=PostgreSQLSource(
            name=f"{name}_source", query="SELECT 1", timestamp_field="event_timestamp"
        ),
    )


def key(**values: str | int) -> EntityKey:
    return EntityKey(
        join_keys=list(values),
        entity_values=[
            Value(string_val=v) if isinstance(v, str) else Value(int64_val=v)
            for v in values.values()
        ],
    )


def row(k: str, number: float, created: float | None = None, /, **features: Value) -> Row:
    known = None if created is None else day(0) + timedelta(days=created)
    return (key(k=k), features, day(0) + timedelta(days=number), known)


class Opened:
    """A store over one view, in few words."""

    def __init__(self, dsn: str) -> None:
        self.config = config(dsn)
        self.store = WideRowOnlineStore()

    def apply(self, *keep: FeatureView, drop: Sequence[FeatureView] = ()) -> None:
        self.store.update(self.config, drop, keep, [], [], partial=False)

    def write(self, table: FeatureView, *rows: Row) -> None:
        self.store.online_write_batch(self.config, table, list(rows), None)

    def read(
        self, table: FeatureView, *keys: EntityKey, features: list[str] | None = None
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        return self.store.online_read(self.config, table, list(keys), features)


@pytest.fixture
def opened(dsn: str) -> Iterator[Opened]:
    handle = Opened(dsn)
    yield handle
    handle.store.disconnect()


NUMBERS: dict[str, FeastType] = {"n": Int64}


def n(value: int) -> Value:
    return Value(int64_val=value)


@pytest.fixture
def numbers(opened: Opened) -> FeatureView:
    table = view(NUMBERS)
    opened.apply(table)
    return table


def test_values_of_all_types_and_nulls_come_back_as_written(opened: Opened) -> None:
    table = view(ALL_TYPES)
    opened.apply(table)
    nulls = {name: Value() for name in ALL_TYPES}
    opened.write(table, row("full", 1, **ONE_OF_EACH), row("null", 2, **nulls), row("none", 3))
    full, null, none = opened.read(table, key(k="full"), key(k="null"), key(k="none"))
    assert full == (day(1), ONE_OF_EACH)
    # Feast's null of a timestamp is NumPy's.
    read_null = {**nulls, "moment": Value(unix_timestamp_val=-(2**63))}
    assert null == (day(2), read_null)
    assert none == (day(3), read_null)


def test_columns_have_the_types_of_the_features(opened: Opened, database: Connection) -> None:
    opened.apply(view(ALL_TYPES))
    stored = database.execute(
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns"
        " WHERE table_schema = 'online' AND table_name = 'p_v' ORDER BY ordinal_position"
    ).fetchall()
    assert stored == [
        ("k", "text", "NO"),
        ("event_timestamp", "timestamp with time zone", "NO"),
        ("created_timestamp", "timestamp with time zone", "YES"),
        ("i32", "integer", "YES"),
        ("i64", "bigint", "YES"),
        ("f32", "real", "YES"),
        ("f64", "double precision", "YES"),
        ("text", "text", "YES"),
        ("flag", "boolean", "YES"),
        ("raw", "bytea", "YES"),
        ("moment", "timestamp with time zone", "YES"),
        ("several", "bytea", "YES"),
    ]


def test_unknown_entities_have_no_row_and_the_order_asked_is_kept(
    opened: Opened, numbers: FeatureView
) -> None:
    opened.write(numbers, row("a", 1, n=n(1)), row("b", 2, n=n(2)))
    keys = [key(k=k) for k in ("b", "nobody", "a", "b")]
    assert opened.read(numbers, *keys) == [
        (day(2), {"n": n(2)}),
        (None, None),
        (day(1), {"n": n(1)}),
        (day(2), {"n": n(2)}),
    ]
    assert opened.read(numbers) == []


def test_only_the_features_asked_are_read(opened: Opened) -> None:
    table = view({"a": Int64, "b": Int64})
    opened.apply(table)
    opened.write(table, row("x", 1, a=n(1), b=n(2)))
    assert opened.read(table, key(k="x"), features=["b"]) == [(day(1), {"b": n(2)})]


@pytest.mark.parametrize(
    ("first", "second", "stays"),
    [
        ((2, 2), (1, 9), 1),  # a late older event never overwrites, whenever it became known
        ((1, 1), (2, 0), 2),  # a newer event does
        ((1, 2), (1, 1), 1),  # of one event, a version known earlier does not
        ((1, 1), (1, 2), 2),  # a version known later does
        ((1, 1), (1, None), 1),
        ((1, None), (1, 1), 2),
        ((1, 1), (1, 1), 2),  # the same again does, as it may fill columns that were added
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_the_newest_event_then_the_last_known_stays(  # noqa: PLR0917  # parameters of the test
    opened: Opened,
    numbers: FeatureView,
    first: tuple[int, int | None],
    second: tuple[int, int | None],
    stays: int,
    together: bool,  # a parameter of the test
) -> None:
    rows = [row("a", *first, n=n(1)), row("a", *second, n=n(2))]
    for batch in [rows] if together else [[r] for r in rows]:
        opened.write(numbers, *batch)
    [(event, values)] = opened.read(numbers, key(k="a"))
    assert values == {"n": n(stays)}
    assert event == day((first, second)[stays - 1][0])


def test_times_without_a_zone_are_in_utc(opened: Opened, numbers: FeatureView) -> None:
    east = timezone(timedelta(hours=5))
    opened.write(
        numbers,
        (key(k="naive"), {"n": n(1)}, datetime(2020, 1, 1), None),  # noqa: DTZ001  # the case
        (key(k="east"), {"n": n(1)}, datetime(2020, 1, 1, 5, tzinfo=east), None),
    )
    times = [event for event, _ in opened.read(numbers, key(k="naive"), key(k="east"))]
    assert times == [datetime(2020, 1, 1, tzinfo=UTC)] * 2


def test_nothing_to_write_writes_nothing_and_reports_it(
    opened: Opened, numbers: FeatureView
) -> None:
    told: list[int] = []
    opened.store.online_write_batch(opened.config, numbers, [], told.append)
    opened.store.online_write_batch(opened.config, numbers, [row("a", 1, n=n(1))], told.append)
    assert told == [0, 1]


def test_features_are_added_and_removed(opened: Opened) -> None:
    before, after = view({"a": Int64, "b": Int64}), view({"b": Int64, "c": Float64})
    opened.apply(before)
    opened.write(before, row("x", 1, 1, a=n(1), b=n(2)))
    opened.apply(after)
    assert opened.read(after, key(k="x")) == [(day(1), {"b": n(2), "c": Value()})]
    opened.write(after, row("x", 1, 1, b=n(2), c=Value(double_val=0.5)))
    expected = [(day(1), {"b": n(2), "c": Value(double_val=0.5)})]
    assert opened.read(after, key(k="x")) == expected
    with pytest.raises(ConfigurationError, match=r'column "a" does not exist.*feast apply'):
        opened.read(before, key(k="x"))


def test_a_feature_that_changes_its_type_is_null_until_written(opened: Opened) -> None:
    opened.apply(view({"a": Int64, "b": Int64}))
    opened.write(view({"a": Int64, "b": Int64}), row("x", 1, a=n(1), b=n(2)))
    after = view({"a": String, "b": Int64})
    opened.apply(after)
    assert opened.read(after, key(k="x")) == [(day(1), {"a": Value(), "b": n(2)})]


def test_applying_again_keeps_the_rows(opened: Opened, numbers: FeatureView) -> None:
    opened.write(numbers, row("a", 1, n=n(1)))
    opened.apply(numbers)
    assert opened.read(numbers, key(k="a")) == [(day(1), {"n": n(1)})]


def test_other_join_keys_make_an_empty_table(opened: Opened, numbers: FeatureView) -> None:
    opened.write(numbers, row("a", 1, n=n(1)))
    by_number = view(NUMBERS, {"k": ValueType.INT64})
    opened.apply(by_number)
    assert opened.read(by_number, key(k=1)) == [(None, None)]


def test_several_join_keys_identify_an_entity_in_any_order(opened: Opened) -> None:
    table = view(NUMBERS, {"k": ValueType.STRING, "m": ValueType.INT64})
    opened.apply(table)
    rows: list[Row] = [
        (key(k="a", m=1), {"n": n(1)}, day(1), None),
        (key(m=2, k="a"), {"n": n(2)}, day(2), None),
        (key(k="b", m=1), {"n": n(3)}, day(3), None),
    ]
    opened.write(table, *rows)
    found = opened.read(table, key(m=1, k="b"), key(k="a", m=2), key(k="b", m=2), key(k="a", m=1))
    assert [values and values["n"].int64_val for _, values in found] == [3, 2, None, 1]
    opened.apply(table)
    assert opened.read(table, key(k="a", m=1)) == [(day(1), {"n": n(1)})]


def test_dropped_views_and_teardown_leave_no_table(opened: Opened, database: Connection) -> None:
    one, two = view(NUMBERS, name="one"), view(NUMBERS, name="two")
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'online'"
    opened.apply(one, two)
    opened.apply(two, drop=[one])
    assert database.execute(tables).fetchall() == [("p_two",)]
    opened.store.teardown(opened.config, [two], [])
    opened.store.teardown(opened.config, [two], [])
    assert database.execute(tables).fetchall() == []
    with pytest.raises(ConfigurationError, match=r"online\.p_two.*feast apply"):
        opened.write(two, row("a", 1, n=n(1)))


def test_the_schema_is_made_where_there_is_none(opened: Opened, database: Connection) -> None:
    database.execute("DROP SCHEMA online")
    table = view(NUMBERS)
    opened.apply(table)
    opened.write(table, row("a", 1, n=n(1)))
    assert opened.read(table, key(k="a")) == [(day(1), {"n": n(1)})]


def test_a_batch_with_one_bad_value_writes_nothing(opened: Opened) -> None:
    table = view({"n": Int64, "s": String})
    opened.apply(table)
    good = row("a", 1, n=n(1), s=Value(string_val="x"))
    with pytest.raises(BadData, match="n has a value of type string, declared is int64"):
        opened.write(table, good, row("b", 1, n=Value(string_val="one")))
    with pytest.raises(BadData, match=r"NUL|null character|0x00"):
        opened.write(table, good, row("b", 1, s=Value(string_val="a\x00b")))
    assert opened.read(table, key(k="a")) == [(None, None)]


def test_a_moment_beyond_the_calendar_is_refused(opened: Opened) -> None:
    table = view({"moment": UnixTimestamp})
    opened.apply(table)
    with pytest.raises(BadData, match="outside of the years"):
        opened.write(table, row("a", 1, moment=Value(unix_timestamp_val=10**15)))


def test_views_that_cannot_be_kept_are_refused(opened: Opened) -> None:
    with pytest.raises(ConfigurationError, match=r"event_timestamp.*name it otherwise"):
        opened.apply(view({"event_timestamp": Int64}))
    with pytest.raises(ConfigurationError, match="no entity columns"):
        opened.apply(FeatureView(name="v", schema=[Field(name="n", dtype=Int64)]))


def test_an_unreachable_database_is_told_without_its_password(dsn: str, opened: Opened) -> None:
    table = view(NUMBERS)
    broken = config(dsn)
    broken.online_config["host"] = "/nowhere"
    for call in (
        lambda: opened.store.online_read(broken, table, [key(k="a")]),
        lambda: opened.store.online_write_batch(broken, table, [row("a", 1, n=n(1))], None),
    ):
        with pytest.raises(DependencyUnreachable, match="POSTGRES_HOST") as caught:
            call()
        assert broken.online_config["password"] not in str(caught.value)


def test_reads_go_on_after_their_connection_was_lost(
    opened: Opened, numbers: FeatureView, database: Connection
) -> None:
    opened.write(numbers, row("a", 1, n=n(1)))
    opened.read(numbers, key(k="a"))
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with pytest.raises(DependencyUnreachable):
        opened.read(numbers, key(k="a"))
    assert opened.read(numbers, key(k="a")) == [(day(1), {"n": n(1)})]


def test_it_answers_through_the_sdk_as_feasts_own_store_does(dsn: str, tmp_path: Any) -> None:
    frame = pd.DataFrame(
        {
            "k": [f"user-{i % 40}" for i in range(60)],
            "event_timestamp": [pd.Timestamp(day(0, hours=i)) for i in range(60)],
            "i32": [None if i % 7 == 0 else i - 30 for i in range(60)],
            "i64": [None if i % 5 == 0 else i * 10**15 for i in range(60)],
            "f32": [None if i % 3 == 0 else i / 7 for i in range(60)],
            "f64": [None if i % 4 == 0 else i / 7 for i in range(60)],
            "text": [None if i % 6 == 0 else f"t{i}" for i in range(60)],
            "flag": [None if i % 8 == 0 else i % 2 == 0 for i in range(60)],
            "raw": [None if i % 9 == 0 else bytes([i]) for i in range(60)],
            "moment": [None if i % 2 else pd.Timestamp(day(i)) for i in range(60)],
            "several": [[i, i + 1] for i in range(60)],
        }
    ).astype({"i32": object, "i64": object, "flag": object})
    frame = frame.drop_duplicates("k", keep="last")
    stores = {
        "ours": online(dsn, type="espalier.features.wide_row_store.WideRowOnlineStore"),
        "feast": online(dsn, type="postgres", sslmode="prefer"),
    }
    asked = [{"k": k} for k in (*frame["k"], "nobody", "user-0")]
    answers = {}
    for name, online_store in stores.items():
        store = FeatureStore(
            config=RepoConfig(
                project="p", registry=str(tmp_path / f"{name}.db"), online_store=online_store
            )
        )
        table = view(ALL_TYPES)
        store.apply([Entity(name="k", join_keys=["k"], value_type=ValueType.STRING), table])
        store.write_to_online_store("v", frame)
        answers[name] = store.get_online_features([f"v:{f}" for f in ALL_TYPES], asked)
        close(store)
        if connection := getattr(store.provider.online_store, "_conn", None):
            connection.close()
    ours, feasts = answers["ours"], answers["feast"]
    pd.testing.assert_frame_equal(ours.to_df(), feasts.to_df())
    assert ours.proto == feasts.proto
    written = [None if pd.isna(v) else int(v) for v in frame["i64"]]
    by_key = dict(zip(frame["k"], written, strict=True))
    assert ours.to_dict()["i64"] == [*written, None, by_key["user-0"]]


def test_what_is_relied_on_of_feast() -> None:
    """Feast's interface has these arguments; another version may add some."""
    for method in ("update", "teardown", "online_write_batch", "online_read"):
        theirs = inspect.signature(getattr(OnlineStore, method)).parameters
        ours = inspect.signature(getattr(WideRowOnlineStore, method)).parameters
        assert list(ours) == list(theirs)
    assert OnlineStore.__abstractmethods__ == {
        "update",
        "teardown",
        "online_write_batch",
        "online_read",
    }
