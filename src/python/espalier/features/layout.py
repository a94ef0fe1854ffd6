"""Where a feature view lives in the online store: names and SQL, free of Feast.

One table a view, one typed row an entity: the join key, `event_timestamp` (when the facts
happened), `created_timestamp` (when they became known), then the features. The store writes it,
the prediction server reads it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from psycopg import sql

from espalier.errors import ConfigurationError

SCHEMA = "online"
# PostgreSQL cuts longer names off, and two of them could then be one.
_NAME_LIMIT = 63
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)


def table_name(project: str, view: str) -> str:
    """The table of a view, in `SCHEMA`.

    Raises:
        ConfigurationError: the name is longer than PostgreSQL keeps.
    """
    name = f"{project}_{view}"
    if len(name.encode()) > _NAME_LIMIT:
        raise ConfigurationError(
            f"online table {name} has more than {_NAME_LIMIT} bytes",
            fix="give the project or its feature view a shorter name",
        )
    return name


def is_integer_key(key: str) -> bool:
    """Whether a key, which is text on the wire, names one of a BIGINT column, in its one way."""
    return _INTEGER.fullmatch(key) is not None and -(2**63) <= int(key) < 2**63


def select_rows(project: str, view: str, join_key: str, features: Sequence[str]) -> sql.Composed:
    """A query for many entities: the parameter is the array of keys.

    Gives key, event_timestamp, then the features in the order asked; no row for an unknown key.
    """
    columns = [sql.Identifier(name) for name in (join_key, "event_timestamp", *features)]
    return sql.SQL("SELECT {columns} FROM {table} WHERE {key} = ANY(%s)").format(
        columns=sql.SQL(", ").join(columns),
        table=sql.Identifier(SCHEMA, table_name(project, view)),
        key=sql.Identifier(join_key),
    )


def select_any_key(project: str, view: str, join_key: str) -> sql.Composed:
    """A query for the first entity by key; no row from an empty store."""
    return sql.SQL("SELECT {key} FROM {table} ORDER BY {key} LIMIT 1").format(
        key=sql.Identifier(join_key), table=sql.Identifier(SCHEMA, table_name(project, view))
    )
