from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta, timezone

import pytest
from feast import FeatureView, Field, ValueType
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64, Int64, String, UnixTimestamp

from espalier.errors import BadData, ConfigurationError, DependencyUnreachable
from espalier.features.conftest import day
from espalier.features.testing import (
    ALL_TYPES,
    NUMBERS,
    ONE_OF_EACH,
    Opened,
    config,
    key,
    n,
    row,
    view,
)
from espalier.features.wide_row_store import WideRowOnlineStore
from espalier.features.wide_row_table import Row
from espalier.postgres.connect import Connection


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
        "SELECT attname, format_type(atttypid, NULL), CASE WHEN attnotnull THEN 'NO' ELSE 'YES' END"
        " FROM pg_attribute WHERE attrelid = 'online.p_v'::regclass AND attnum > 0 ORDER BY attnum"
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
        ("pdf", "bytea", "YES"),
        ("uuid", "text", "YES"),
        ("price", "text", "YES"),
        ("doc", "text", "YES"),
        ("i32s", "integer[]", "YES"),
        ("i64s", "bigint[]", "YES"),
        ("f32s", "real[]", "YES"),
        ("f64s", "double precision[]", "YES"),
        ("texts", "text[]", "YES"),
        ("flags", "boolean[]", "YES"),
        ("raws", "bytea[]", "YES"),
        ("moments", "timestamp with time zone[]", "YES"),
        ("i64_set", "bigint[]", "YES"),
        ("mapping", "bytea", "YES"),
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


def test_features_are_added_and_removed(opened: Opened, database: Connection) -> None:
    before, after = view({"a": Int64, "b": Int64}), view({"b": Int64, "c": Float64})
    opened.apply(before)
    opened.write(before, row("x", 1, 1, a=n(1), b=n(2)))
    opened.apply(after)
    assert opened.read(after, key(k="x")) == [(day(1), {"b": n(2), "c": Value()})]
    opened.write(after, row("x", 1, 1, b=n(2), c=Value(double_val=0.5)))
    expected = [(day(1), {"b": n(2), "c": Value(double_val=0.5)})]
    assert opened.read(after, key(k="x")) == expected
    stored = database.execute("SELECT * FROM online.p_v").description
    assert stored is not None
    assert [c.name for c in stored] == ["k", "event_timestamp", "created_timestamp", "b", "c"]


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


def test_what_is_relied_on_of_feast() -> None:
    """Feast's interface has these arguments; another version may add some."""
    for method in (
        "update",
        "teardown",
        "online_write_batch",
        "online_write_batch_async",
        "online_read",
        "online_read_async",
        # Not public: where the statuses of a view's values are made.
        "_read_features_per_fv",
        "_read_features_per_fv_async",
    ):
        theirs = inspect.signature(getattr(OnlineStore, method)).parameters
        ours = inspect.signature(getattr(WideRowOnlineStore, method)).parameters
        assert list(ours) == list(theirs)
    assert OnlineStore.__abstractmethods__ == {
        "update",
        "teardown",
        "online_write_batch",
        "online_read",
    }
