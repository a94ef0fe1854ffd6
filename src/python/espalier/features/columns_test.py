from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import psycopg
import pytest
from psycopg import sql

from espalier.features.columns import read_columns
from espalier.postgres.connect import Connection


def test_each_type_comes_as_its_array(database: Connection) -> None:
    query = sql.SQL(
        "SELECT * FROM (VALUES"
        " ((-9223372036854775808)::int8, 0.1::float8, true, '2020-01-02 03:04:05.6+00'::timestamptz,"
        "  'ü'),"
        " (9223372036854775807, 'NaN', false, '-infinity', ''),"
        " (0, '-infinity', false, '1969-12-31 23:59:59+00', E'a\\nb\\t\\\\')) AS v"
    )
    number, real, flag, moment, text = read_columns(
        database, query, ("int8", "float8", "bool", "timestamptz", "text")
    )
    assert number.tolist() == [-(2**63), 2**63 - 1, 0]
    assert number.dtype == np.int64
    assert real.dtype == np.float64
    assert real[0] == 0.1
    assert math.isnan(real[1])
    assert real[2] == -math.inf
    assert flag.tolist() == [True, False, False]
    assert flag.dtype == np.bool_
    assert np.isnat(moment).tolist() == [False, True, False]
    instants = [value.replace(tzinfo=UTC) for value in moment[[0, 2]].tolist()]
    assert instants == [
        datetime(2020, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
    ]
    assert text.tolist() == ["ü", "", "a\nb\t\\"]


@pytest.mark.parametrize("count", [0, 1, 16_384, 40_000])
def test_any_number_of_rows(database: Connection, count: int) -> None:
    query = sql.SQL("SELECT n::int8, 'k' || n FROM generate_series(1, %(n)s) AS n ORDER BY n")
    number, text = read_columns(database, query, ("int8", "text"), {"n": count})
    assert number.tolist() == list(range(1, count + 1))
    assert text.tolist() == [f"k{n}" for n in range(1, count + 1)]


def test_no_text_is_needed(database: Connection) -> None:
    [number] = read_columns(database, sql.SQL("SELECT 7::int8"), ("int8",))
    assert number.tolist() == [7]


@pytest.mark.parametrize(
    "query",
    ["SELECT NULL::int8, 1.0::float8", "SELECT 1::int4, 1.0::float8", "SELECT 1::int8"],
)
def test_a_null_or_another_width_is_no_value(database: Connection, query: str) -> None:
    with pytest.raises(AssertionError, match="a value and the declared width"):
        read_columns(database, sql.SQL(query), ("int8", "float8"))


def test_an_error_while_rows_come_is_raised(database: Connection) -> None:
    query = sql.SQL("SELECT 1::int8 / (n - 20000) FROM generate_series(1, 30000) AS n")
    with pytest.raises(psycopg.errors.DivisionByZero):
        read_columns(database, query, ("int8",))
