"""Ours against Feast's own PostgreSQL online store: the same random rows in, the same answers out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import Entity, FeatureStore, RepoConfig, ValueType
from feast.infra.online_stores.postgres_online_store.postgres import PostgreSQLOnlineStore
from feast.protos.feast.types import Value_pb2
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import (
    Array,
    Bool,
    Bytes,
    Decimal,
    FeastType,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    PdfBytes,
    Set,
    String,
    TimeUuid,
    UnixTimestamp,
    Uuid,
)
from feast.types import Map as MapType
from feast.value_type import ValueType as Kind

from espalier.features.conftest import day
from espalier.features.feast_store import close
from espalier.features.testing import OURS, START, config, key, online, view
from espalier.features.wide_row_store import WideRowOnlineStore
from espalier.features.wide_row_table import Row

SCALARS: dict[FeastType, Callable[[random.Random], Any]] = {
    Int32: lambda chance: chance.randrange(-(2**31), 2**31),
    Int64: lambda chance: chance.randrange(-(2**63), 2**63),
    Float32: lambda chance: chance.choice([0.0, -0.0, 1e-40, chance.uniform(-1e30, 1e30)]),
    Float64: lambda chance: chance.choice([0.0, float("inf"), chance.uniform(-1e300, 1e300)]),
    String: lambda chance: "".join(
        chance.choices("aü\u4e2d\U0001f600\\'\"\t\n{},", k=chance.randrange(9))
    ),
    Bool: lambda chance: chance.random() < 0.5,
    Bytes: lambda chance: chance.randbytes(chance.randrange(9)),
    PdfBytes: lambda chance: chance.randbytes(9),
    UnixTimestamp: lambda chance: chance.randrange(-(10**10), 10**11),
    Uuid: lambda chance: f"{chance.getrandbits(128):032X}",
    TimeUuid: lambda chance: f"{chance.getrandbits(128):032x}",
    Decimal: lambda chance: chance.choice(["1.50", "1E+5", "-0", "NaN"]),
    Json: lambda chance: chance.choice(['{"b": 1,  "a": 2}', "[1.0]", "null", '"\\u0041"']),
}
COLLECTIONS = [t for t in SCALARS if t not in (PdfBytes, Json)]
TYPES: list[FeastType] = [
    *SCALARS,
    *(Array(t) for t in COLLECTIONS),
    *(Set(t) for t in COLLECTIONS),
    Array(Json),
    MapType,
    Array(Array(Int64)),
]
NAMES = {f"f{number}": dtype for number, dtype in enumerate(TYPES)}


def value(chance: random.Random, dtype: FeastType) -> Value:
    """A random value of the type, or a null as Feast makes it of one."""
    kind = dtype.to_value_type()
    if chance.random() < 0.2:
        # Feast's null of a timestamp is NumPy's "not a time".
        return Value(unix_timestamp_val=-(2**63)) if kind is Kind.UNIX_TIMESTAMP else Value()
    made = Value()
    if dtype is MapType:
        made.map_val.val["k"].CopyFrom(Value(int64_val=chance.randrange(9)))
    elif isinstance(dtype, Array) and isinstance(dtype.base_type, Array):
        inner = Value(int64_list_val=Value_pb2.Int64List(val=[chance.randrange(9)]))
        made.list_val.val.append(inner)
    elif isinstance(dtype, Array | Set):
        assert not isinstance(dtype.base_type, Array | Set)
        member = getattr(made, f"{kind.name.lower()}_val")
        member.SetInParent()
        member.val.extend(SCALARS[dtype.base_type](chance) for _ in range(chance.randrange(4)))
    else:
        member_name = {"PDF_BYTES": "bytes"}.get(kind.name, kind.name.lower())
        setattr(made, f"{member_name}_val", SCALARS[dtype](chance))
    return made


@pytest.mark.parametrize("seed", range(3))
def test_every_type_comes_back_as_from_feasts_store(dsn: str, seed: int) -> None:
    chance = random.Random(seed)
    table = view(NAMES)
    theirs_config = RepoConfig(
        project="p",
        registry="unused.db",
        online_store=online(dsn, type="postgres", sslmode="prefer", db_schema="public"),
        entity_key_serialization_version=3,
    )
    ours, theirs = WideRowOnlineStore(), PostgreSQLOnlineStore()
    ours.update(config(dsn), [], [table], [], [], partial=False)
    theirs.update(theirs_config, [], [table], [], [], partial=False)
    # Each entity's events in their order: an older one never comes after a newer, which Feast's
    # store would take.
    for batch in range(4):
        rows: list[Row] = [
            (
                key(k=f"k{number}"),
                {name: value(chance, dtype) for name, dtype in NAMES.items()},
                day(batch, hours=number % 24),
                day(batch + 1),
            )
            for number in range(60)
            if batch == 0 or chance.random() < 0.5
        ]
        ours.online_write_batch(config(dsn), table, rows, None)
        theirs.online_write_batch(theirs_config, table, rows, None)
    asked = [key(k=f"k{chance.randrange(70)}") for _ in range(200)]
    for features in (list(NAMES), ["f3", "f0"], list(reversed(NAMES))):
        mine = ours.online_read(config(dsn), table, asked, features)
        other = theirs.online_read(theirs_config, table, asked, features)
        assert [e for e, _ in mine] == [e for e, _ in other]
        assert [v for _, v in mine] == [v for _, v in other]
    ours.disconnect()
    assert theirs._conn is not None
    theirs._conn.close()


SDK_TYPES: dict[str, FeastType] = {
    "i32": Int32,
    "i64": Int64,
    "f32": Float32,
    "f64": Float64,
    "text": String,
    "flag": Bool,
    "raw": Bytes,
    "moment": UnixTimestamp,
    "several": Array(Int64),
    "words": Array(String),
}


def frame(chance: random.Random, rows: int) -> pd.DataFrame:
    """Random rows as a user of the SDK has them, one an entity, with nulls in every column."""

    def column(make: Callable[[], Any]) -> list[Any]:
        return [None if chance.random() < 0.2 else make() for _ in range(rows)]

    return pd.DataFrame(
        {
            "k": chance.sample([f"user-{i}" for i in range(rows * 2)], rows),
            "event_timestamp": [
                pd.Timestamp(START) + timedelta(seconds=chance.randrange(10**6))
                for _ in range(rows)
            ],
            "i32": pd.Series(column(lambda: chance.randrange(-(2**31), 2**31)), dtype=object),
            # Feast takes integers with nulls among them for floats.
            "i64": pd.Series(column(lambda: chance.randrange(-(2**53), 2**53)), dtype=object),
            "f32": column(lambda: chance.choice([0.25, chance.random(), float("nan")])),
            "f64": column(lambda: chance.choice([-0.0, chance.random(), float("inf")])),
            "text": column(lambda: f"t\u00fc{chance.random()}"),
            "flag": pd.Series(column(lambda: chance.random() < 0.5), dtype=object),
            "raw": column(lambda: chance.randbytes(5)),
            "moment": column(lambda: pd.Timestamp(START) + timedelta(seconds=chance.random() * 9)),
            "several": [[chance.randrange(9)] * chance.randrange(3) for _ in range(rows)],
            "words": [["", "a,b"][: chance.randrange(3)] for _ in range(rows)],
        }
    )


@contextmanager
def opened(dsn: str, folder: Path, name: str, **store: Any) -> Iterator[FeatureStore]:
    made = FeatureStore(
        config=RepoConfig(
            project="p",
            provider="local",
            registry=str(folder / f"{name}.db"),
            offline_store=online(dsn, type="postgres", sslmode="prefer"),
            online_store=online(dsn, **store),
            entity_key_serialization_version=3,
        )
    )
    yield made
    close(made)
    if connection := getattr(made.provider.online_store, "_conn", None):
        connection.close()


@pytest.mark.parametrize("seed", range(3))
def test_it_answers_through_the_sdk_as_feasts_own_store_does(
    dsn: str, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    first, second = frame(chance, 40), frame(chance, 40)
    second["event_timestamp"] += pd.Timedelta(days=30)
    asked = [{"k": f"user-{chance.randrange(100)}"} for _ in range(120)]
    features = [f"v:{name}" for name in SDK_TYPES]
    answers = {}
    for name, store in {
        "ours": {"type": OURS},
        "feast": {"type": "postgres", "sslmode": "prefer"},
    }.items():
        with opened(dsn, tmp_path, name, **store) as made:
            entity = Entity(name="k", join_keys=["k"], value_type=ValueType.STRING)
            made.apply([entity, view(SDK_TYPES)])
            for rows in (first, second):
                made.write_to_online_store("v", rows)
            answers[name] = made.get_online_features(features, asked)
    pd.testing.assert_frame_equal(answers["ours"].to_df(), answers["feast"].to_df())
    assert answers["ours"].proto == answers["feast"].proto
    written = pd.concat([first, second]).drop_duplicates("k", keep="last").set_index("k")
    expected = [written["i64"].get(row["k"]) for row in asked]
    given = [None if value is None or pd.isna(value) else int(value) for value in expected]
    assert answers["ours"].to_dict()["i64"] == given
    assert any(value is not None for value in given)
