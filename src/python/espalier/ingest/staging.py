"""Staging: a batch's files as tables of the declared types.

A file whose text surely holds the types is copied straight into the typed table. Any other is
copied as text first, which is checked field by field and told by row.

The tables live in the schema `staging` for one call. Their names begin with a token of the call
that holds it by a session-level advisory lock, so the next call can tell what a dead one left.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from espalier.contract import Column, ColumnType, Table
from espalier.errors import BadData
from espalier.ingest.faults import SHOWN, Faults, shown
from espalier.ingest.plain import PlainText
from espalier.ingest.records import Reader
from espalier.ingest.source import FileFacts, SourceFile
from espalier.postgres.connect import Connection

SCHEMA = "staging"
# The number of the record in its file, the header being 1. No declared name begins with _.
LINE = "_line"
# A sequence that is asked for each number alone takes as long as the rest of a COPY.
_LINE_TYPE = "bigint GENERATED ALWAYS AS IDENTITY (START 2 CACHE 1000)"
# Of a session that works on a batch: a million keys are grouped within it.
WORK_MEMORY = "64MB"
_LOCK_CLASS = 0x73746167
_TOKEN = re.compile(r"i([0-9a-f]{8})_")

# What PostgreSQL reads as a type is wider than what a file may hold: 'today' is a date to it, 0x1F
# an integer and NaN a double.
PATTERNS = {
    ColumnType.INTEGER: r"^[+-]?\d+$",
    ColumnType.DOUBLE: r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$",
    ColumnType.BOOLEAN: r"^(true|false|t|f|1|0)$",
    ColumnType.DATE: r"^\d{4}-\d\d-\d\d$",
    ColumnType.TIMESTAMP: r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d(:?\d\d)?)?)?$",
}
NOUNS = {
    ColumnType.INTEGER: "a whole number",
    ColumnType.DOUBLE: "a number",
    ColumnType.BOOLEAN: "true or false",
    ColumnType.DATE: "a date such as 1997-06-30",
    ColumnType.TIMESTAMP: "a time such as 1997-06-30T12:00:00Z",
}


@dataclass(frozen=True)
class Staging:
    """The staging tables of one call, by declared table; names within `SCHEMA`."""

    token: int

    def raw(self, table: Table) -> str:
        """The table with the file's text."""
        return f"i{self.token:08x}_{table.name}_raw"

    def typed(self, table: Table) -> str:
        """The table with the declared types."""
        return f"i{self.token:08x}_{table.name}_typed"


@contextmanager
def staging(connection: Connection) -> Iterator[Staging]:
    """Names for one call's tables, which are dropped at its end.

    `connection` is in autocommit mode: other connections must see the tables. What dead calls
    left is dropped first.
    """
    drop_leftovers(connection)
    token = _take_token(connection)
    try:
        yield Staging(token)
    finally:
        # Without its connection this call counts as dead, and the next one clears up.
        if not connection.closed:
            _drop(connection, token)
            _release(connection, token)


def drop_leftovers(connection: Connection) -> int:
    """Drop the tables of calls that ended without doing so; give how many calls."""
    names = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r'",
        [SCHEMA],
    ).fetchall()
    dropped = 0
    for token in {int(m[1], 16) for (name,) in names if (m := _TOKEN.match(name))}:
        if _try_lock(connection, token):
            _drop(connection, token)
            _release(connection, token)
            dropped += 1
    return dropped


def load(connection: Connection, place: Staging, source: SourceFile) -> FileFacts:
    """COPY a file into its typed table, or into its raw one if a field may not hold its type.

    In the second case `type_faults` tells what is wrong, and `make_typed` goes on if nothing is.

    Raises:
        UsageError: the file cannot be read.
        BadData: the file is not CSV with as many fields in each row as in the header, or not of
            its format.
    """
    facts = _load_typed(connection, place, source)
    return _load_raw(connection, place, source) if facts is None else facts


class _MayNotHold(Exception):
    """Text that the fast check does not know for sure."""


def _load_typed(connection: Connection, place: Staging, source: SourceFile) -> FileFacts | None:
    """COPY with types; None, and no table, if that fails or may have accepted too much."""
    target = sql.Identifier(SCHEMA, place.typed(source.table))
    types = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(c.name), sql.SQL(c.type.value))
        for c in source.table.columns
    )
    _create(connection, target, types)
    reader, plain = Reader(source), PlainText(source)
    try:
        with connection.cursor() as cursor, cursor.copy(_copy(target, source)) as writer:
            for piece in _surely_typed(reader, plain):
                writer.write(piece)
    except (psycopg.DataError, _MayNotHold):
        connection.execute(sql.SQL("DROP TABLE {}").format(target))
        return None
    if plain.minus_zero:
        _minus_zero_to_zero(connection, target, source.table)
    _analyze(connection, target)
    return reader.facts


def _surely_typed(pieces: Iterable[bytes], plain: PlainText) -> Iterator[bytes]:
    """The pieces of a file, the first of which begins with the header, while they hold their types.

    Raises:
        _MayNotHold: they no longer do.
    """
    header = True
    for piece in pieces:
        records = piece[piece.find(b"\n") + 1 or len(piece) :] if header else piece
        header = False
        if records and not plain.holds(records):
            raise _MayNotHold
        yield piece


def _load_raw(connection: Connection, place: Staging, source: SourceFile) -> FileFacts:
    target = sql.Identifier(SCHEMA, place.raw(source.table))
    columns = sql.SQL(", ").join(
        sql.SQL("{} text").format(sql.Identifier(name)) for name in source.header
    )
    _create(connection, target, columns)
    reader = Reader(source)
    try:
        with connection.cursor() as cursor, cursor.copy(_copy(target, source)) as writer:
            for piece in reader:
                writer.write(piece)
    except psycopg.DataError as error:
        place_in_file = re.search(r"\bline (\d+)", error.diag.context or "")
        raise BadData(
            f"{source.path}{f' line {place_in_file[1]}' if place_in_file else ''}: "
            f"{error.diag.message_primary}",
            fix=_mend(error),
        ) from error
    return reader.facts


def _mend(error: psycopg.DataError) -> str:
    if isinstance(error, psycopg.errors.CharacterNotInRepertoire):
        return "take the byte out"
    if "carriage return" in (error.diag.message_primary or ""):
        return "end all lines alike, with LF or with CR and LF"
    return "mend the row: as many fields as the header, quoted where needed"


def _create(connection: Connection, target: sql.Identifier, columns: sql.Composed) -> None:
    connection.execute(
        sql.SQL("CREATE UNLOGGED TABLE {} ({} {}, {})").format(
            target, sql.Identifier(LINE), sql.SQL(_LINE_TYPE), columns
        )
    )


def _copy(target: sql.Identifier, source: SourceFile) -> sql.Composed:
    names = sql.SQL(", ").join(sql.Identifier(name) for name in source.header)
    return sql.SQL(
        "COPY {} ({}) FROM STDIN (FORMAT csv, HEADER match, ENCODING 'UTF8', FORCE_NULL ({}))"
    ).format(target, names, names)


def _minus_zero_to_zero(connection: Connection, target: sql.Identifier, table: Table) -> None:
    doubles = [sql.Identifier(c.name) for c in table.columns if c.type is ColumnType.DOUBLE]
    connection.execute(
        sql.SQL("UPDATE {} SET {} WHERE {}").format(
            target,
            sql.SQL(", ").join(sql.SQL("{} = {} + 0").format(name, name) for name in doubles),
            # Only text tells them apart.
            sql.SQL(" OR ").join(
                sql.SQL("({} = 0 AND {}::text = '-0')").format(name, name) for name in doubles
            ),
        )
    )


def _analyze(connection: Connection, target: sql.Identifier) -> None:
    """What the planner needs to know of a table of unknown size: a small sample does."""
    connection.execute("SET default_statistics_target = 10")
    connection.execute(sql.SQL("ANALYZE {}").format(target))
    connection.execute("RESET default_statistics_target")


def type_faults(connection: Connection, place: Staging, table: Table) -> Faults | None:
    """The fields of the raw table that do not hold their column's type; None when there are none.

    An empty field is null, which every type holds. There is no raw table when all fields are
    known to hold theirs.
    """
    typed = [c for c in table.columns if c.type is not ColumnType.TEXT]
    if not typed or not _exists(connection, place.raw(table)):
        return None
    raw = sql.Identifier(SCHEMA, place.raw(table))
    checks = sql.SQL(", ").join(
        sql.SQL("({}, {}, {})").format(sql.Literal(c.name), sql.Identifier(c.name), is_valid(c))
        for c in typed
    )
    # A first pass without the values: as a rule nothing is wrong, and then it is the only one.
    every = sql.SQL(" AND ").join(is_valid(c) for c in typed)
    query = sql.SQL(
        "SELECT {line}, f.name, f.value, count(*) OVER () FROM {raw} "
        "CROSS JOIN LATERAL (VALUES {checks}) AS f (name, value, valid) "
        "WHERE NOT ({every}) AND NOT f.valid ORDER BY {line} LIMIT {shown}"
    ).format(
        line=sql.Identifier(LINE), raw=raw, checks=checks, every=every, shown=sql.Literal(SHOWN)
    )
    rows = connection.execute(query).fetchall()
    if not rows:
        return None
    first = tuple(
        f"row {line} column {name}: {shown(value)} is not {NOUNS[table.column(name).type]}"
        for line, name, value, _ in rows
    )
    return Faults(table.name, rows[0][3], first)


def make_typed(connection: Connection, place: Staging, table: Table) -> None:
    """Make the typed table from the raw one, which has no type fault, and drop that.

    Nothing is to do when there is no raw table.
    """
    if not _exists(connection, place.raw(table)):
        return
    raw, typed = (sql.Identifier(SCHEMA, name) for name in (place.raw(table), place.typed(table)))
    connection.execute(
        sql.SQL("CREATE UNLOGGED TABLE {} AS SELECT {}, {} FROM {}").format(
            typed,
            sql.Identifier(LINE),
            sql.SQL(", ").join(_cast(c) for c in table.columns),
            raw,
        )
    )
    connection.execute(sql.SQL("DROP TABLE {}").format(raw))
    _analyze(connection, typed)


def count_rows(
    connection: Connection, place: Staging, tables: Sequence[Table]
) -> Mapping[str, int]:
    """The rows of each typed table."""
    counts = {}
    for table in tables:
        query = sql.SQL("SELECT count(*) FROM {}").format(
            sql.Identifier(SCHEMA, place.typed(table))
        )
        row = connection.execute(query).fetchone()
        assert row is not None, "an aggregate gives one row"
        counts[table.name] = int(row[0])
    return counts


def is_valid(column: Column) -> sql.Composed:
    """Whether the text in the column's field holds its type, as a condition."""
    match = "~*" if column.type is ColumnType.BOOLEAN else "~"
    return sql.SQL(
        "({name} IS NULL OR ({name} " + match + " {pattern} AND pg_input_is_valid({name}, {type})))"
    ).format(
        name=sql.Identifier(column.name),
        pattern=sql.Literal(PATTERNS[column.type]),
        type=sql.Literal(column.type.value),
    )


def _cast(column: Column) -> sql.Composed:
    # Adding zero turns -0 into 0, which is equal to it but not written alike.
    zero = sql.SQL(" + 0" if column.type is ColumnType.DOUBLE else "")
    return sql.SQL("{name}::{type}{zero} AS {name}").format(
        name=sql.Identifier(column.name), type=sql.SQL(column.type.value), zero=zero
    )


def _exists(connection: Connection, name: str) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = %s::regnamespace "
        "AND relname = %s)",
        [SCHEMA, name],
    ).fetchone()
    return row is not None and bool(row[0])


def _take_token(connection: Connection) -> int:
    while True:
        token = secrets.randbelow(2**31)
        if _try_lock(connection, token):
            return token


def _try_lock(connection: Connection, token: int) -> bool:
    row = connection.execute(
        "SELECT pg_try_advisory_lock(%s::int, %s::int)", [_LOCK_CLASS, token]
    ).fetchone()
    return row is not None and bool(row[0])


def _release(connection: Connection, token: int) -> None:
    connection.execute("SELECT pg_advisory_unlock(%s::int, %s::int)", [_LOCK_CLASS, token])


def _drop(connection: Connection, token: int) -> None:
    names = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r' "
        "AND starts_with(relname, %s)",
        [SCHEMA, f"i{token:08x}_"],
    ).fetchall()
    for (name,) in names:
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(SCHEMA, name)))
