"""The data contract: what each table of a batch holds, as frozen values.

From it come the SQL tables, the Great Expectations suite and Feast's schema, so they cannot
disagree. Nothing here touches a library or a database.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

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
    the value. An empty CSV field is null.
    """

    name: str
    type: ColumnType
    description: str
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] = ()
    references: str | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """One source file of each batch, and the table that keeps its history.

    `key` is unique within one batch. `event_time` is the column that says when a row's facts
    happened; a table without it describes the entity and takes the snapshot's day.
    `max_fault_share` is the share of faulty rows at which the whole batch is refused; a batch with
    fewer than `min_rows` rows is refused too.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    event_time: str | None = None
    max_fault_share: float = 0.0
    min_rows: int = 1

    def column(self, name: str) -> Column:
        """The column of that name; raises ConfigurationError when there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise ConfigurationError(f"table {self.name} declares no column {name}")
