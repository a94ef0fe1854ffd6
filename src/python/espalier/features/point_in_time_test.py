from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from espalier.contract import ColumnType
from espalier.errors import ConfigurationError
from espalier.features.conftest import SHOPS, add_versions, day, make_tables, shop
from espalier.features.point_in_time import features_at, training_set
from espalier.postgres.connect import Connection, connect

LATER = date(2020, 3, 1)


@pytest.fixture
def shops(database: Connection) -> Connection:
    make_tables(database, SHOPS)
    return database


def label(
    connection: Connection,
    number: int,
    *,
    shop_id: str = "a",
    closed: bool = True,
    known: datetime | None = None,
    snapshot: int = 1,
) -> None:
    known = day(number + 2) if known is None else known
    row = (shop_id, day(number).date(), closed, known, snapshot)
    add_versions(connection, SHOPS, "outcomes", [row])


def facts(
    connection: Connection,
    number: int,
    orders: int | None,
    *,
    shop_id: str = "a",
    spend: float | None = 0.5,
    known: datetime | None = None,
    snapshot: int = 1,
) -> None:
    known = day(number) if known is None else known
    row = (shop_id, day(number).date(), orders, spend, known, snapshot)
    add_versions(connection, SHOPS, "facts", [row])


def orders_of(frame: pd.DataFrame) -> list[float]:
    return list(frame["orders"])


def test_a_label_gets_the_newest_features_of_its_time(shops: Connection) -> None:
    label(shops, 10)
    facts(shops, 8, 8)
    facts(shops, 10, 10)
    facts(shops, 9, 9, shop_id="b")
    frame = training_set(shops, SHOPS, as_of=LATER)
    assert list(frame.columns) == [
        "shop_id",
        "label_time",
        "label",
        "feature_time",
        "orders",
        "spend",
    ]
    assert frame.to_dict("records") == [
        {
            "shop_id": "a",
            "label_time": pd.Timestamp(day(10)),
            "label": True,
            "feature_time": pd.Timestamp(day(10)),
            "orders": 10.0,
            "spend": 0.5,
        }
    ]


def test_features_that_happened_after_the_label_are_kept_out(shops: Connection) -> None:
    label(shops, 10)
    facts(shops, 10, 1)
    facts(shops, 11, 666, known=day(5))
    assert orders_of(training_set(shops, SHOPS, as_of=LATER)) == [1]


def test_features_that_became_known_after_the_label_are_kept_out(shops: Connection) -> None:
    label(shops, 10)
    facts(shops, 9, 1)
    facts(shops, 10, 666, known=day(10, hours=1))
    assert orders_of(training_set(shops, SHOPS, as_of=LATER)) == [1]


def test_a_correction_counts_only_for_labels_after_it_was_known(shops: Connection) -> None:
    label(shops, 10)
    label(shops, 12)
    facts(shops, 10, 1)
    facts(shops, 10, 2, known=day(11), snapshot=2)
    assert orders_of(training_set(shops, SHOPS, as_of=LATER)) == [1, 2]


def test_of_versions_known_at_the_same_time_the_later_snapshot_counts(shops: Connection) -> None:
    label(shops, 10)
    for snapshot, orders in [(3, 3), (2, 2), (4, 4)]:
        facts(shops, 10, orders, known=day(10), snapshot=snapshot)
    assert orders_of(training_set(shops, SHOPS, as_of=LATER)) == [4]
    assert orders_of(features_at(shops, SHOPS, when=day(10).date())) == [4]


def test_features_older_than_the_ttl_are_stale(shops: Connection) -> None:
    label(shops, 13)
    facts(shops, 10, 1)
    assert orders_of(training_set(shops, SHOPS, as_of=LATER)) == [1]
    label(shops, 14)
    frame = training_set(shops, SHOPS, as_of=LATER)
    assert frame["label_time"].tolist() == [pd.Timestamp(day(13))]
    assert frame.attrs["without_features"] == 1


def test_labels_are_those_known_by_the_day_in_their_version_of_then(shops: Connection) -> None:
    facts(shops, 10, 1)
    label(shops, 10, closed=False, known=day(12))
    label(shops, 10, closed=True, known=day(14), snapshot=2)
    frames = {n: training_set(shops, SHOPS, as_of=day(n).date()) for n in (11, 12, 13, 14)}
    assert {n: frame["label"].tolist() for n, frame in frames.items()} == {
        11: [],
        12: [False],
        13: [False],
        14: [True],
    }


def test_rows_are_ordered_by_time_then_by_the_bytes_of_the_key(shops: Connection) -> None:
    for shop_id in ("b", "B", "a", "ä"):
        for number in (11, 10):
            label(shops, number, shop_id=shop_id)
            facts(shops, number, 1, shop_id=shop_id)
    frame = training_set(shops, SHOPS, as_of=LATER)
    assert frame["shop_id"].tolist() == ["B", "a", "b", "ä"] * 2
    assert frame["label_time"].is_monotonic_increasing
    assert features_at(shops, SHOPS, when=day(11).date())["shop_id"].tolist() == list("Babä")


def test_types_stay_the_same_without_rows_and_with_nulls(shops: Connection) -> None:
    empty = training_set(shops, SHOPS, as_of=LATER)
    facts(shops, 10, None, spend=None)
    label(shops, 10)
    frame = training_set(shops, SHOPS, as_of=LATER)
    assert len(empty) == 0
    assert len(frame) == 1
    assert frame[["orders", "spend"]].isna().all(axis=None)
    expected = ["object", "datetime64[ns, UTC]", "bool", "datetime64[ns, UTC]", *["float64"] * 2]
    assert [str(t) for t in frame.dtypes] == expected
    assert [str(t) for t in empty.dtypes] == expected
    features = features_at(shops, SHOPS, when=date(2000, 1, 1))
    assert [str(t) for t in features.dtypes] == ["object", "datetime64[ns, UTC]", *["float64"] * 2]


def test_the_session_time_zone_does_not_move_days(dsn: str, shops: Connection) -> None:
    label(shops, 10)
    facts(shops, 10, 1)
    facts(shops, 11, 666)
    with psycopg.connect(dsn, options="-c timezone=Pacific/Kiritimati") as elsewhere:
        frame = training_set(elsewhere, SHOPS, as_of=LATER)
        assert frame["feature_time"].tolist() == [pd.Timestamp(day(10))]
        assert orders_of(features_at(elsewhere, SHOPS, when=day(10).date())) == [1]


def test_features_at_a_day_are_those_known_on_it(shops: Connection) -> None:
    facts(shops, 10, 1)
    facts(shops, 10, 2, known=day(12), snapshot=2)
    facts(shops, 12, 666, known=day(13))
    facts(shops, 7, 5, shop_id="old")
    seen = {n: orders_of(features_at(shops, SHOPS, when=day(n).date())) for n in (9, 10, 12, 14)}
    assert seen == {9: [5], 10: [1, 5], 12: [2], 14: [666]}


def test_without_ingested_tables_it_says_what_to_do(database: Connection) -> None:
    with pytest.raises(ConfigurationError, match="ingest a batch first"):
        training_set(database, SHOPS, as_of=LATER)
    with pytest.raises(ConfigurationError, match="ingest a batch first"):
        features_at(database, SHOPS, when=LATER)


def test_a_label_that_is_known_no_more_is_no_row(database: Connection) -> None:
    """The contract may allow a null; a correction may also take the value back."""
    facts_table, outcomes = SHOPS.tables
    *others, closed = outcomes.columns
    project = replace(
        SHOPS,
        tables=(facts_table, replace(outcomes, columns=(*others, replace(closed, nullable=True)))),
    )
    make_tables(database, project)
    facts(database, 10, 1)
    label(database, 10, closed=True, known=day(12))
    retracted = ("a", day(10).date(), None, day(13), 2)
    add_versions(database, project, "outcomes", [retracted])
    assert training_set(database, project, as_of=day(12).date())["label"].tolist() == [True]
    frame = training_set(database, project, as_of=day(13).date())
    assert len(frame) == 0
    assert frame.attrs["without_features"] == 0


def test_integers_are_floats_and_special_floats_stay(shops: Connection) -> None:
    label(shops, 10)
    label(shops, 10, shop_id="b")
    label(shops, 10, shop_id="c")
    facts(shops, 10, 2**53, spend=math.inf)
    facts(shops, 10, -1, spend=math.nan, shop_id="b")
    facts(shops, 10, None, spend=-0.0, shop_id="c")
    frame = training_set(shops, SHOPS, as_of=LATER)
    np.testing.assert_array_equal(frame["orders"], [2.0**53, -1, math.nan])
    np.testing.assert_array_equal(frame["spend"], [math.inf, math.nan, -0.0])
    assert np.signbit(frame["spend"].to_numpy()[2])


def test_an_all_null_column_is_floats(shops: Connection) -> None:
    for shop_id in "abc":
        label(shops, 10, shop_id=shop_id)
        facts(shops, 10, None, shop_id=shop_id)
    frame = training_set(shops, SHOPS, as_of=LATER)
    assert frame["orders"].dtype == np.float64
    assert frame["orders"].isna().all()
    assert frame["spend"].tolist() == [0.5] * 3


def test_keys_may_be_integers(database: Connection) -> None:
    project = shop(key_type=ColumnType.INTEGER)
    make_tables(database, project)
    keys = [10, 9, -(2**63), 2**63 - 1]
    known = day(10)
    add_versions(database, project, "facts", [(k, known.date(), 1, 0.5, known, 1) for k in keys])
    add_versions(database, project, "outcomes", [(k, known.date(), True, day(12), 1) for k in keys])
    frame = training_set(database, project, as_of=LATER)
    assert frame["shop_id"].dtype == np.int64
    assert frame["shop_id"].tolist() == sorted(keys)
    assert features_at(database, project, when=known.date())["shop_id"].tolist() == sorted(keys)
    empty = training_set(database, project, as_of=date(2000, 1, 1))
    assert empty["shop_id"].dtype == np.int64


def test_a_key_of_another_type_is_refused(database: Connection) -> None:
    project = shop(key_type=ColumnType.DATE)
    make_tables(database, project)
    with pytest.raises(ConfigurationError, match="declare it as TEXT or INTEGER"):
        training_set(database, project, as_of=LATER)


def test_instants_of_any_zone_are_one_instant(dsn: str) -> None:
    project = shop(ColumnType.TIMESTAMP)
    east = timezone(timedelta(hours=14))
    at = day(10, hours=3.5)
    with connect(dsn, autocommit=True) as connection:
        make_tables(connection, project)
        for shop_id, event in (("a", at), ("b", at.astimezone(east))):
            row = (shop_id, event, 1, 0.5, at.astimezone(east), 1)
            add_versions(connection, project, "facts", [row])
            late = (shop_id, event + timedelta(microseconds=1), 666, 0.5, at, 1)
            add_versions(connection, project, "facts", [late])
            outcome = (shop_id, event, True, day(12), 1)
            add_versions(connection, project, "outcomes", [outcome])
        frame = training_set(connection, project, as_of=LATER)
    assert frame["label_time"].tolist() == [pd.Timestamp(at)] * 2
    assert frame["feature_time"].tolist() == [pd.Timestamp(at)] * 2
    assert orders_of(frame) == [1, 1]


def test_many_rows_come_whole_and_in_order(shops: Connection) -> None:
    """More than one chunk of what is read at once."""
    shops.execute(
        "INSERT INTO shops.facts SELECT 'shop-' || n, '2020-01-11', n, n / 4.0, '2020-01-11Z', 1"
        " FROM generate_series(1, 40000) AS n"
    )
    shops.execute(
        "INSERT INTO shops.outcomes SELECT 'shop-' || n, '2020-01-11', n % 3 = 0, '2020-01-13Z', 1"
        " FROM generate_series(1, 40000) AS n"
    )
    frame = training_set(shops, SHOPS, as_of=LATER)
    numbers = frame["shop_id"].str.removeprefix("shop-").astype(int)
    assert len(frame) == 40_000
    assert frame["shop_id"].is_monotonic_increasing
    assert (frame["orders"] == numbers).all()
    assert (frame["spend"] == numbers / 4).all()
    assert (frame["label"] == (numbers % 3 == 0)).all()


# A property: whatever the history, the SQL gives what the definition's words say.

Version = tuple[str, int, int, int, Any]
hours = st.integers(0, 8 * 24)
days = st.integers(0, 8).map(lambda n: n * 24)
values = st.one_of(st.none(), st.integers(-5, 5))


def histories(
    times: st.SearchStrategy[int], value: st.SearchStrategy[Any]
) -> st.SearchStrategy[list[Version]]:
    """Versions as (shop, event hour, known hour, snapshot, value); no two of one key in one."""
    version = st.tuples(st.sampled_from("ab"), times, hours, st.integers(1, 4), value)
    return st.lists(version, max_size=25, unique_by=lambda v: (v[0], v[1], v[3]))


def newest(versions: list[Version], at: int, ttl: int) -> Version | None:
    """Of one entity's versions, the one that counts at the hour `at`."""
    usable = [v for v in versions if at - ttl <= v[1] <= at and v[2] <= at]
    return max(usable, key=lambda v: v[1:4], default=None)


@pytest.mark.parametrize("kind", [ColumnType.DATE, ColumnType.TIMESTAMP])
def test_a_training_set_is_what_the_definition_says(dsn: str, kind: ColumnType) -> None:
    project = shop(kind)
    times = days if kind is ColumnType.DATE else hours
    ttl = project.view.ttl // timedelta(hours=1)
    with connect(dsn) as connection:
        make_tables(connection, project)
        connection.commit()

        @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
        @given(histories(times, values), histories(times, st.booleans()), st.integers(0, 9))
        def check(features: list[Version], labels: list[Version], as_of: int) -> None:
            def stored(event: int) -> date:
                return day(0, event).date() if kind is ColumnType.DATE else day(0, event)

            add_versions(
                connection,
                project,
                "facts",
                [(k, stored(e), v, v, day(0, known), s) for k, e, known, s, v in features],
            )
            add_versions(
                connection,
                project,
                "outcomes",
                [(k, stored(e), v, day(0, known), s) for k, e, known, s, v in labels],
            )
            frame = training_set(connection, project, as_of=day(as_of).date())
            at_day = features_at(connection, project, when=day(as_of).date())
            connection.rollback()

            expected: list[tuple[Any, ...]] = []
            without = 0
            known = [v for v in labels if v[2] <= as_of * 24]
            for event, key in sorted({(v[1], v[0]) for v in known}):
                last = max((v for v in known if v[:2] == (key, event)), key=lambda v: v[2:4])
                found = newest([v for v in features if v[0] == key], event, ttl)
                if found is None:
                    without += 1
                else:
                    expected.append((key, day(0, event), last[4], day(0, found[1]), found[4]))
            assert frame.attrs["without_features"] == without
            assert rows(frame) == expected

            now = [(k, newest([v for v in features if v[0] == k], as_of * 24, ttl)) for k in "ab"]
            assert rows(at_day) == [(k, day(0, v[1]), v[4]) for k, v in now if v is not None]

        check()


def rows(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """A frame's rows up to `orders`, with None for null; `spend` must be the same."""
    np.testing.assert_array_equal(frame["orders"], frame["spend"])
    shown = frame.drop(columns="spend").astype(object)
    return list(shown.where(shown.notna(), None).itertuples(index=False, name=None))
