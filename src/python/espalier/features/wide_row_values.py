"""How Feast's values are kept in typed PostgreSQL columns, and read back.

Every scalar type has a column type of its own. Any other type (lists, maps, vectors) is kept as
the bytes of its protobuf message, so that no declared feature is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import NULL_TIMESTAMP_INT_VALUE
from feast.types import FeastType
from feast.value_type import ValueType

from espalier.errors import BadData

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Column:
    """A typed column for one feature or join key.

    `sql_type` is PostgreSQL's name of the type. `encode` gives the value for the column (None for
    a null) and raises BadData for a value of another type; `decode` gives Feast's value back.
    """

    name: str
    sql_type: str
    encode: Callable[[Value], Any]
    decode: Callable[[Any], Value]


_SCALARS = {
    ValueType.INT32: ("integer", "int32_val"),
    ValueType.INT64: ("bigint", "int64_val"),
    ValueType.FLOAT: ("real", "float_val"),
    ValueType.DOUBLE: ("double precision", "double_val"),
    ValueType.STRING: ("text", "string_val"),
    ValueType.BOOL: ("boolean", "bool_val"),
    ValueType.BYTES: ("bytea", "bytes_val"),
}


def column(name: str, dtype: FeastType) -> Column:
    """The column that keeps a field of Feast's type `dtype`."""
    value_type = dtype.to_value_type()
    if value_type is ValueType.UNIX_TIMESTAMP:
        return Column(name, "timestamp with time zone", _timestamp_encoder(name), _decode_timestamp)
    if value_type in _SCALARS:
        sql_type, member = _SCALARS[value_type]
        return Column(name, sql_type, _encoder(name, member), _decoder(member))
    return Column(name, "bytea", _encode_message, _decode_message)


def _encoder(name: str, member: str) -> Callable[[Value], Any]:
    def encode(value: Value) -> Any:
        found = value.WhichOneof("val")
        if found == member:
            return getattr(value, member)
        if found is None or found == "null_val":
            return None
        raise BadData(
            f"feature {name} has a value of type {found.removesuffix('_val')}, "
            f"declared is {member.removesuffix('_val')}",
            fix="make the source's column and the feature view's schema agree",
        )

    return encode


def _decoder(member: str) -> Callable[[Any], Value]:
    def decode(stored: Any) -> Value:
        return Value() if stored is None else Value(**{member: stored})

    return decode


def _timestamp_encoder(name: str) -> Callable[[Value], datetime | None]:
    seconds_of = _encoder(name, "unix_timestamp_val")

    def encode(value: Value) -> datetime | None:
        seconds = seconds_of(value)
        # Feast's null of this type is a number, NumPy's "not a time".
        if seconds is None or seconds == NULL_TIMESTAMP_INT_VALUE:
            return None
        try:
            return _EPOCH + timedelta(seconds=seconds)
        except OverflowError as error:
            raise BadData(
                f"feature {name}: {seconds} s since 1970 is outside of the years 1 to 9999"
            ) from error

    return encode


def _decode_timestamp(stored: Any) -> Value:
    if stored is None:
        return Value(unix_timestamp_val=NULL_TIMESTAMP_INT_VALUE)
    return Value(unix_timestamp_val=(stored - _EPOCH) // timedelta(seconds=1))


def _encode_message(value: Value) -> bytes | None:
    return None if value.WhichOneof("val") is None else value.SerializeToString()


def _decode_message(stored: Any) -> Value:
    return Value() if stored is None else Value.FromString(bytes(stored))
