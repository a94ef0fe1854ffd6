"""The data contract: what each table of a batch holds, as frozen values.

From it come the SQL tables, the Great Expectations suite and Feast's schema, so they cannot
disagree. Nothing here touches a library or a database.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import timedelta
from enum import Enum
from typing import Any

from espalier.errors import ConfigurationError


class ColumnType(Enum):
    """A column's type; the value is PostgreSQL's name of it."""

    TEXT = "text"
    INTEGER = "bigint"
    DOUBLE = "double precision"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamptz"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One typed column and what its values must satisfy.

    `minimum` and `maximum` are inclusive. `references` names the `table.column` that must hold
    the value. A `unique` column has no value twice within one batch. An empty CSV field is null; a
    batch in which more than `max_null_share` of a nullable column's values are null is refused.
    """

    name: str
    type: ColumnType
    description: str
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] = ()
    references: str | None = None
    unique: bool = False
    max_null_share: float | None = None

    def __post_init__(self) -> None:
        """Refuse a share that is none or that nothing can have."""
        if self.max_null_share is None:
            return
        if not self.nullable or not 0 <= self.max_null_share <= 1:
            raise ConfigurationError(
                f"column {self.name} declares max_null_share {self.max_null_share:g}",
                fix="declare a share from 0 to 1, of a nullable column",
            )


@dataclass(frozen=True, kw_only=True)
class Table:
    """One source file of each batch, and the table that keeps its history.

    `key` is unique within one batch. `event_time` is the column that says when a row's facts
    happened; a table without it describes the entity and takes the snapshot's day.
    Faulty rows go to the quarantine while they are no more than `max_fault_share` of the file's;
    above it the whole batch is refused. It is also refused with fewer than `min_rows` rows, with a
    number of rows that differs from the last snapshot's by more than `max_row_change` of that, and
    when its newest event is more than `max_age` older than the batch's day.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    event_time: str | None = None
    max_fault_share: float = 0.0
    min_rows: int = 1
    max_row_change: float | None = None
    max_age: timedelta | None = None

    def __post_init__(self) -> None:
        """Refuse limits that nothing can meet."""
        if not 0 <= self.max_fault_share <= 1:
            raise ConfigurationError(
                f"table {self.name} declares max_fault_share {self.max_fault_share:g}",
                fix="declare a share from 0 to 1",
            )
        if self.max_row_change is not None and self.max_row_change < 0:
            raise ConfigurationError(f"table {self.name} declares a max_row_change below 0")
        if self.max_age is not None and (self.event_time is None or self.max_age < timedelta(0)):
            raise ConfigurationError(
                f"table {self.name} declares a max_age",
                fix="declare its event_time too, and an age that is not below 0",
            )

    def column(self, name: str) -> Column:
        """The column of that name; raises ConfigurationError when there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise ConfigurationError(f"table {self.name} declares no column {name}")


def contract_json(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """The contract as plain JSON values, tables by name.

    What has its default is left out, so a contract keeps its form when a later release knows more
    rules. Times are in seconds.
    """
    return [_plain(table) for table in sorted(tables, key=lambda table: table.name)]


def contract_digest(tables: Sequence[Table]) -> str:
    """The sha256, in hex, of the contract's canonical JSON: keys sorted, no spaces."""
    canonical = json.dumps(
        contract_json(tables), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: Any) -> Any:
    match value:
        case Column() | Table():
            return {
                field.name: _plain(getattr(value, field.name))
                for field in fields(value)
                if field.default is MISSING or getattr(value, field.name) != field.default
            }
        case ColumnType():
            return value.value
        case timedelta():
            return value.total_seconds()
        case tuple():
            return [_plain(one) for one in value]
    return value
