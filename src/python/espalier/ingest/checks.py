"""The checks that a declaration asks of a batch, as values that know no validation library.

Types are not among them: staging settles those before. What breaks a check of rows may be left out
of the batch; what breaks a check of a table as a whole refuses the batch.
"""

from __future__ import annotations

import math
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
    ROW_CHANGE = "has about as many rows as before"
    FRESH = "is fresh"
    NULL_SHARE = "has few nulls"
    NOT_NULL = "is not null"
    RANGE = "is in its range"
    ALLOWED = "is an allowed value"
    UNIQUE = "is unique"
    REFERENCE = "is known"

    @property
    def of_rows(self) -> bool:
        """Whether single rows break it, rather than the table as a whole."""
        return self not in _OF_TABLES


_OF_TABLES = frozenset({Kind.ROWS, Kind.ROW_CHANGE, Kind.FRESH, Kind.NULL_SHARE})


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check of one table.

    `minimum` and `maximum` are inclusive: of a column's values (RANGE), its newest value (FRESH),
    its share of values that are not null (NULL_SHARE), or the number of rows (ROWS, ROW_CHANGE).
    `references` is the (table, column) that must hold the value, in this batch or before it.
    `says` completes a sentence that begins with a value which breaks the check, or for a check of
    the table as a whole with the file's name.
    """

    kind: Kind
    table: str
    says: str
    columns: tuple[str, ...] = ()
    minimum: Bound | None = None
    maximum: Bound | None = None
    allowed: tuple[Any, ...] = ()
    references: tuple[str, str] | None = None


def checks(
    project: Project, *, as_of: date, last_rows: Mapping[str, int] | None = None
) -> list[Check]:
    """The checks of a batch known on `as_of`, in the order of the declaration.

    Beyond what columns declare: the key is not null and unique; no row happened after `as_of`, and
    no label came before its horizon had passed, as it would tell the future; a label of several
    classes is one of them.

    Args:
        project: The declaration.
        as_of: The batch's day.
        last_rows: How many rows each table had in the snapshot before; None when it is the first.

    Raises:
        ConfigurationError: a declared check does not fit its column.
    """
    found: list[Check] = []
    for table in project.tables:
        found += _table_checks(table, as_of, (last_rows or {}).get(table.name))
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


def _table_checks(table: Table, as_of: date, last_rows: int | None) -> list[Check]:
    found = []
    if table.min_rows > 0:
        says = "has no rows" if table.min_rows == 1 else f"has fewer than {table.min_rows} rows"
        found.append(Check(kind=Kind.ROWS, table=table.name, minimum=table.min_rows, says=says))
    if table.max_row_change is not None and last_rows is not None:
        change = last_rows * table.max_row_change
        least, most = math.ceil(last_rows - change), math.floor(last_rows + change)
        found.append(
            Check(
                kind=Kind.ROW_CHANGE,
                table=table.name,
                minimum=least,
                maximum=most,
                says=f"has a number of rows that is not from {least} to {most}, as it had "
                f"{last_rows} in the snapshot before",
            )
        )
    if table.max_age is not None and table.event_time is not None:
        found.append(_fresh(table, table.column(table.event_time), as_of, table.max_age))
    return found


def _fresh(table: Table, column: Column, as_of: date, max_age: timedelta) -> Check:
    oldest = datetime.combine(as_of, time(), tzinfo=UTC) - max_age
    minimum: Bound = oldest
    if column.type is ColumnType.DATE:
        # A day counts from its midnight, so the first whole one is meant.
        minimum = oldest.date() + timedelta(days=oldest.time() != time())
    return Check(
        kind=Kind.FRESH,
        table=table.name,
        columns=(column.name,),
        minimum=minimum,
        says=f"has no {column.name} from {minimum} on",
    )


def _column_checks(project: Project, table: Table, column: Column) -> list[Check]:
    found = []
    name = (column.name,)
    if not column.nullable or column.name in (*table.key, table.event_time):
        found.append(
            Check(kind=Kind.NOT_NULL, table=table.name, columns=name, says="where a value is due")
        )
    if column.max_null_share is not None:
        found.append(
            Check(
                kind=Kind.NULL_SHARE,
                table=table.name,
                columns=name,
                # A little less, as 1 - 1/3 is more than 2/3 to a computer.
                minimum=math.floor((1 - column.max_null_share) * 1e9) / 1e9,
                says=f"has a {column.name} that is null in more than "
                f"{column.max_null_share:.4g} of its rows",
            )
        )
    if column.unique and name != table.key:
        found.append(
            Check(kind=Kind.UNIQUE, table=table.name, columns=name, says="is there more than once")
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
    if allowed := column.allowed or _classes(project, table, column):
        found.append(
            Check(
                kind=Kind.ALLOWED,
                table=table.name,
                columns=name,
                allowed=tuple(_parse(table, column, text) for text in allowed),
                says=f"is none of {', '.join(allowed)}",
            )
        )
    if column.references is not None:
        found.append(_reference(project, table, column, column.references))
    return found


def _classes(project: Project, table: Table, column: Column) -> tuple[str, ...]:
    """What the label may be, if this is it and it is a class."""
    is_label = (table.name, column.name) == (project.label.table, project.label.column)
    return project.label.classes if is_label else ()


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
