"""How Feast's values are kept in typed PostgreSQL columns, and read back.

Every scalar type has a column type of its own, and every list or set of scalars an array of it.
What SQL would write in another way than it came (decimals, UUIDs, JSON) is text. Maps, structs and
nested lists are kept as the bytes of their protobuf message, so that no declared feature is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import NULL_TIMESTAMP_INT_VALUE
from feast.types import FeastType
from feast.value_type import ValueType
from psycopg.postgres import types as postgres_types

from espalier.errors import BadData

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = "timestamp with time zone"


@dataclass(frozen=True)
class Column:
    """A typed column for one feature or join key.

    `sql_type` is PostgreSQL's name of the type, `oid` its number. `encode` gives the value for the
    column (None for a null) and raises BadData for a value of another type; `decode` gives Feast's
    value back.
    """

    name: str
    sql_type: str
    encode: Callable[[Value], Any]
    decode: Callable[[Any], Value]

    @property
    def is_array(self) -> bool:
        """Whether it holds lists."""
        return self.sql_type.endswith("[]")

    @cached_property
    def oid(self) -> int:
        """PostgreSQL's number of the type."""
        info = postgres_types[self.sql_type.removesuffix("[]")]
        return info.array_oid if self.is_array else info.oid


_SCALARS = {
    ValueType.INT32: ("integer", "int32_val"),
    ValueType.INT64: ("bigint", "int64_val"),
    ValueType.FLOAT: ("real", "float_val"),
    ValueType.DOUBLE: ("double precision", "double_val"),
    ValueType.STRING: ("text", "string_val"),
    ValueType.BOOL: ("boolean", "bool_val"),
    ValueType.BYTES: ("bytea", "bytes_val"),
    ValueType.PDF_BYTES: ("bytea", "bytes_val"),
    ValueType.IMAGE_BYTES: ("bytea", "bytes_val"),
    ValueType.UUID: ("text", "uuid_val"),
    ValueType.TIME_UUID: ("text", "time_uuid_val"),
    ValueType.DECIMAL: ("text", "decimal_val"),
    ValueType.JSON: ("text", "json_val"),
}
# Lists and sets by the scalar type that their names begin with.
_ELEMENTS = {
    **{kind.name: sql_type for kind, (sql_type, _) in _SCALARS.items()},
    "UNIX_TIMESTAMP": _INSTANT,
}


def column(name: str, dtype: FeastType) -> Column:
    """The column that keeps a field of Feast's type `dtype`."""
    value_type = dtype.to_value_type()
    if value_type is ValueType.UNIX_TIMESTAMP:
        return Column(name, _INSTANT, _timestamp_encoder(name), _decode_timestamp)
    if value_type in _SCALARS:
        sql_type, member = _SCALARS[value_type]
        return Column(name, sql_type, _encoder(name, member), _decoder(member))
    element, _, collection = value_type.name.rpartition("_")
    member = f"{value_type.name.lower()}_val"
    if (
        collection in ("LIST", "SET")
        and element in _ELEMENTS
        and member in Value.DESCRIPTOR.fields_by_name
    ):
        instants = element == "UNIX_TIMESTAMP"
        return Column(
            name,
            f"{_ELEMENTS[element]}[]",
            _list_encoder(name, member, instants=instants),
            _list_decoder(member, instants=instants),
        )
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
        return None if seconds is None else _instant(name, seconds)

    return encode


def _decode_timestamp(stored: Any) -> Value:
    return Value(unix_timestamp_val=_seconds(stored))


def _list_encoder(name: str, member: str, *, instants: bool) -> Callable[[Value], list[Any] | None]:
    message_of = _encoder(name, member)

    def encode(value: Value) -> list[Any] | None:
        message = message_of(value)
        if message is None:
            return None
        return [_instant(name, v) for v in message.val] if instants else list(message.val)

    return encode


def _list_decoder(member: str, *, instants: bool) -> Callable[[Any], Value]:
    def decode(stored: Any) -> Value:
        value = Value()
        if stored is not None:
            message = getattr(value, member)
            # An empty list is there too, other than a null.
            message.SetInParent()
            message.val.extend([_seconds(v) for v in stored] if instants else stored)
        return value

    return decode


def _instant(name: str, seconds: int) -> datetime | None:
    # Feast's null of this type is a number, NumPy's "not a time".
    if seconds == NULL_TIMESTAMP_INT_VALUE:
        return None
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except OverflowError as error:
        raise BadData(
            f"feature {name}: {seconds} s since 1970 is outside of the years 1 to 9999"
        ) from error


def _seconds(stored: datetime | None) -> int:
    if stored is None:
        return NULL_TIMESTAMP_INT_VALUE
    return (stored - _EPOCH) // timedelta(seconds=1)


def _encode_message(value: Value) -> bytes | None:
    return None if value.WhichOneof("val") is None else value.SerializeToString()


def _decode_message(stored: Any) -> Value:
    return Value() if stored is None else Value.FromString(bytes(stored))
