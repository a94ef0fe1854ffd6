"""The checks that a declaration asks of a batch, as values that know no validation library.

Types are not among them: staging settles those before. `max_fault_share` will let a batch through
without its faulty rows; until there is a quarantine, one fault refuses the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from typing import Any

from espalier.contract import Column, ColumnType, Table
from espalier.errors import ConfigurationError
from espalier.project import Project

Bound = float | date | datetime

_NUMBERS = (ColumnType.INTEGER, ColumnType.DOUBLE)


class Kind(Enum):
    """What a check asks."""

    ROWS = "has rows"
    NOT_NULL = "is not null"
    RANGE = "is in its range"
    ALLOWED = "is an allowed value"
    UNIQUE = "is unique"
    REFERENCE = "is known"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check of one table.

    `columns` is empty for a check of the table as a whole. `minimum` and `maximum` are inclusive.
    `references` is the (table, column) that must hold the value, in this batch or before it.
    `says` completes a sentence that begins with a value which breaks the check.
    """

    kind: Kind
    table: str
    says: str
    columns: tuple[str, ...] = ()
    minimum: Bound | None = None
    maximum: Bound | None = None
    allowed: tuple[Any, ...] = ()
    references: tuple[str, str] | None = None


def checks(project: Project, *, as_of: date) -> list[Check]:
    """The checks of a batch known on `as_of`, in the order of the declaration.

    Beyond what columns declare: the key is not null and unique; no row happened after `as_of`, and
    no label came before its horizon had passed, as it would tell the future; every table has
    rows, except the label's, as there are months in which no label becomes known.

    Raises:
        ConfigurationError: a declared check does not fit its column.
    """
    found: list[Check] = []
    for table in project.tables:
        if table.name != project.label.table:
            found.append(Check(kind=Kind.ROWS, table=table.name, says="has no rows"))
        for column in table.columns:
            found += _column_checks(project, table, column)
            if column.name == table.event_time:
                found.append(_not_after(project, table, column, as_of))
        found.append(
            Check(
                kind=Kind.UNIQUE,
                table=table.name,
                columns=table.key,
                says="is there more than once",
            )
        )
    return found


def _column_checks(project: Project, table: Table, column: Column) -> list[Check]:
    found = []
    name = (column.name,)
    if not column.nullable or column.name in (*table.key, table.event_time):
        found.append(
            Check(kind=Kind.NOT_NULL, table=table.name, columns=name, says="where a value is due")
        )
    if column.minimum is not None or column.maximum is not None:
        if column.type not in _NUMBERS:
            raise ConfigurationError(
                f"{table.name}.{column.name} is {column.type.value} and declares a range",
                fix="declare minimum and maximum for INTEGER and DOUBLE only",
            )
        found.append(
            Check(
                kind=Kind.RANGE,
                table=table.name,
                columns=name,
                minimum=column.minimum,
                maximum=column.maximum,
                says=_range_says(column.minimum, column.maximum),
            )
        )
    if column.allowed:
        found.append(
            Check(
                kind=Kind.ALLOWED,
                table=table.name,
                columns=name,
                allowed=tuple(_parse(table, column, text) for text in column.allowed),
                says=f"is none of {', '.join(column.allowed)}",
            )
        )
    if column.references is not None:
        found.append(_reference(project, table, column, column.references))
    return found


def _reference(project: Project, table: Table, column: Column, target: str) -> Check:
    other_table, _, other_column = target.partition(".")
    if project.table(other_table).column(other_column).type is not column.type:
        raise ConfigurationError(
            f"{table.name}.{column.name} references {target}, which has another type"
        )
    return Check(
        kind=Kind.REFERENCE,
        table=table.name,
        columns=(column.name,),
        references=(other_table, other_column),
        says=f"is not in {target}",
    )


def _not_after(project: Project, table: Table, column: Column, as_of: date) -> Check:
    is_label = table.name == project.label.table
    last = as_of - (project.label.horizon if is_label else timedelta(0))
    until = f"is after {last}, so it could not be known on {as_of}"
    maximum: Bound
    if column.type is ColumnType.DATE:
        maximum = last
    elif column.type is ColumnType.TIMESTAMP:
        maximum = datetime.combine(last, time.max, tzinfo=UTC)
    else:
        raise ConfigurationError(
            f"{table.name}.{column.name} is an event time and {column.type.value}",
            fix="declare it DATE or TIMESTAMP",
        )
    return Check(
        kind=Kind.RANGE, table=table.name, columns=(column.name,), maximum=maximum, says=until
    )


def _range_says(minimum: float | None, maximum: float | None) -> str:
    if minimum is None:
        return f"is above {maximum:g}"
    if maximum is None:
        return f"is below {minimum:g}"
    return f"is not from {minimum:g} to {maximum:g}"


def _parse(table: Table, column: Column, text: str) -> Any:
    readers: Mapping[ColumnType, Any] = {
        ColumnType.TEXT: str,
        ColumnType.INTEGER: int,
        ColumnType.DOUBLE: float,
        ColumnType.BOOLEAN: lambda value: {"true": True, "false": False}[value],
        ColumnType.DATE: date.fromisoformat,
        ColumnType.TIMESTAMP: datetime.fromisoformat,
    }
    try:
        return readers[column.type](text)
    except (ValueError, KeyError) as error:
        raise ConfigurationError(
            f"{table.name}.{column.name} allows {text!r}, which is not {column.type.value}"
        ) from error
