"""For tests of the online store: views of every type, rows in few words, and stores to open."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from feast import Entity, FeatureView, Field, RepoConfig, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import (
    BoolList,
    BytesList,
    DoubleList,
    FloatList,
    Int32List,
    Int64List,
    Int64Set,
    Map,
    StringList,
    Value,
)
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
    UnixTimestamp,
    Uuid,
)
from feast.types import Map as MapType
from psycopg.conninfo import conninfo_to_dict

from espalier.features.wide_row_read import Read
from espalier.features.wide_row_store import WideRowOnlineStore
from espalier.features.wide_row_table import Row

OURS = "espalier.features.wide_row_store.WideRowOnlineStore"
START = datetime(2020, 1, 1, tzinfo=UTC)

ALL_TYPES: dict[str, FeastType] = {
    "i32": Int32,
    "i64": Int64,
    "f32": Float32,
    "f64": Float64,
    "text": String,
    "flag": Bool,
    "raw": Bytes,
    "moment": UnixTimestamp,
    "pdf": PdfBytes,
    "uuid": Uuid,
    "price": Decimal,
    "doc": Json,
    "i32s": Array(Int32),
    "i64s": Array(Int64),
    "f32s": Array(Float32),
    "f64s": Array(Float64),
    "texts": Array(String),
    "flags": Array(Bool),
    "raws": Array(Bytes),
    "moments": Array(UnixTimestamp),
    "i64_set": Set(Int64),
    "mapping": MapType,
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
    "pdf": Value(bytes_val=b"%PDF"),
    "uuid": Value(uuid_val="6BA7B810-9dad-11d1-80b4-00c04fd430c8"),
    "price": Value(decimal_val="1.50"),
    "doc": Value(json_val='{"b": 1,  "a": [null]}'),
    "i32s": Value(int32_list_val=Int32List(val=[2**31 - 1, -1])),
    "i64s": Value(int64_list_val=Int64List(val=[3, 1, 2])),
    "f32s": Value(float_list_val=FloatList(val=[0.1, 1e30])),
    "f64s": Value(double_list_val=DoubleList(val=[])),
    "texts": Value(string_list_val=StringList(val=["", "a,b", '"{}"'])),
    "flags": Value(bool_list_val=BoolList(val=[True, False])),
    "raws": Value(bytes_list_val=BytesList(val=[b"", b"\x00"])),
    "moments": Value(unix_timestamp_list_val=Int64List(val=[0, -(2**63), 10**9])),
    "i64_set": Value(int64_set_val=Int64Set(val=[7, 5])),
    "mapping": Value(map_val=Map(val={"k": Value(int64_val=1)})),
}


def online(dsn: str, **kind: Any) -> dict[str, Any]:
    """An online store's part of feature_store.yaml."""
    parts = conninfo_to_dict(dsn)
    return {
        **kind,
        "host": parts["host"],
        "port": int(parts["port"] or 0),
        "database": parts["dbname"],
        "user": parts["user"],
        "password": parts["password"],
    }


def config(dsn: str, **options: Any) -> RepoConfig:
    """A configuration for calls of the store itself."""
    return RepoConfig(
        project="p",
        registry="unused.db",
        online_store=online(dsn, type=OURS, **options),
    )


def view(
    types: dict[str, FeastType], keys: dict[str, ValueType] | None = None, name: str = "v"
) -> FeatureView:
    """A view as Feast hands it to the store; one text key `k` unless named."""
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
    """The key of an entity, from its join keys' values."""
    return EntityKey(
        join_keys=list(values),
        entity_values=[
            Value(string_val=v) if isinstance(v, str) else Value(int64_val=v)
            for v in values.values()
        ],
    )


def row(k: str, number: float, created: float | None = None, /, **features: Value) -> Row:
    """A row of the entity `k`, of so many days after `START`, known so many days after it."""
    known = None if created is None else START + timedelta(days=created)
    return (key(k=k), features, START + timedelta(days=number), known)


class Opened:
    """A store over one view, in few words."""

    def __init__(self, dsn: str) -> None:
        """Connect to nothing yet."""
        self.config = config(dsn)
        self.store = WideRowOnlineStore()

    def apply(self, *keep: FeatureView, drop: Sequence[FeatureView] = ()) -> None:
        """Make the tables fit the views."""
        self.store.update(self.config, drop, keep, [], [], partial=False)

    def write(self, table: FeatureView, *rows: Row) -> None:
        """Write a batch."""
        self.store.online_write_batch(self.config, table, list(rows), None)

    def read(
        self, table: FeatureView, *keys: EntityKey, features: list[str] | None = None
    ) -> list[Read]:
        """Read entities."""
        return self.store.online_read(self.config, table, list(keys), features)


NUMBERS: dict[str, FeastType] = {"n": Int64}


def n(value: int) -> Value:
    """A value of the view of `NUMBERS`."""
    return Value(int64_val=value)
