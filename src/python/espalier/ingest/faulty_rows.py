"""Faulty rows of a batch, taken out of its staging tables; nothing here runs for a batch without.

What is wrong is kept beside the staging tables: a table of faults and one of the rows that have
them. Great Expectations says whether a check found rows; which ones is asked again here, set-wise,
and both must count the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg import sql

from espalier.contract import Table
from espalier.errors import EspalierError
from espalier.ingest.checks import Check, Kind
from espalier.ingest.findings import Finding
from espalier.ingest.staging import LINE, NOUNS, SCHEMA, Staging, is_valid
from espalier.postgres.connect import Connection

TYPE_RULE = "has its type"
# Of a batch that is refused, as many rows are kept to be looked at.
KEPT = 10_000

_Stored = Mapping[str, tuple[str, str]]

_SHOWN = sql.SQL(
    "CASE WHEN {value} IS NULL THEN 'null' WHEN length({value}) > 46 "
    "THEN '''' || left({value}, 45) || '...''' ELSE '''' || {value} || '''' END"
)


class FaultyRows:
    """The faulty rows of one batch. `counts` says how many each table has had taken out."""

    def __init__(self, connection: Connection, place: Staging) -> None:
        """None yet."""
        self._connection, self._place = connection, place
        self._made = False
        self.counts: dict[str, int] = {}

    @property
    def faults(self) -> sql.Identifier:
        """Every fault: table_name, line, ordinal, column_name, rule, reason."""
        return sql.Identifier(SCHEMA, f"i{self._place.token:08x}__faults")

    @property
    def rows(self) -> sql.Identifier:
        """The rows taken out: table_name, line, row (their values as text)."""
        return sql.Identifier(SCHEMA, f"i{self._place.token:08x}__faulty_rows")

    def take_badly_typed(self, table: Table) -> None:
        """Take out of the raw table the rows with a field that does not hold its type.

        The typed table can then be made of the others.
        """
        self._make()
        raw = sql.Identifier(SCHEMA, self._place.raw(table))
        fields = sql.SQL(", ").join(
            sql.SQL("({}, {}, {}, {}, {})").format(
                sql.Literal(number),
                sql.Literal(column.name),
                sql.Identifier(column.name),
                is_valid(column),
                sql.Literal(NOUNS[column.type]),
            )
            for number, column in enumerate(table.columns)
            if column.type in NOUNS
        )
        self._connection.execute(
            sql.SQL(
                "INSERT INTO {faults} SELECT {table}, {line}, f.ordinal, f.name, {rule}, "
                "{shown} || ' is not ' || f.noun FROM {raw} "
                "CROSS JOIN LATERAL (VALUES {fields}) AS f (ordinal, name, value, valid, noun) "
                "WHERE NOT f.valid"
            ).format(
                faults=self.faults,
                table=sql.Literal(table.name),
                line=sql.Identifier(LINE),
                rule=sql.Literal(TYPE_RULE),
                shown=_SHOWN.format(value=sql.Identifier("f", "value")),
                raw=raw,
                fields=fields,
            )
        )
        self._take_out(table, raw)

    def take(
        self, tables: Mapping[str, Table], findings: Sequence[Finding], stored: _Stored
    ) -> None:
        """Take out the rows that break the failed checks of rows, and the rows that refer to those.

        Args:
            tables: The declared tables by name.
            findings: All that the validation found.
            stored: Schema and table of the rows stored before, by declared table.

        Raises:
            EspalierError: Great Expectations counted other rows.
        """
        self._make()
        failed = [f for f in findings if f.check.kind.of_rows and not f.success]
        for number, finding in enumerate(failed):
            ordinal = 1000 + number
            taken = self._find(tables[finding.check.table], finding.check, stored, ordinal)
            if taken != finding.unexpected:
                raise EspalierError(
                    f"{finding.check.table}: Great Expectations counts {finding.unexpected} rows "
                    f"where {finding.expectation} finds a fault, and the database {taken}",
                    fix="nothing was stored; this is a fault of ours",
                )
        for name in dict.fromkeys(f.check.table for f in failed):
            self._take_out_typed(tables[name])
        references = [f.check for f in findings if f.check.kind is Kind.REFERENCE]
        self._take_orphans(tables, references, stored)

    def note(self, finding: Finding) -> None:
        """Note a failed check of a table as a whole, which takes no row out."""
        self._make()
        check = finding.check
        self._connection.execute(
            sql.SQL("INSERT INTO {} VALUES (%s, NULL, 0, %s, %s, %s)").format(self.faults),
            [check.table, ", ".join(check.columns) or None, check.kind.value, finding.says],
        )

    def digest(self, content: str) -> str:
        """The digest of a batch whose other rows have the digest `content`; in hex."""
        if not self._made:
            return content
        row = self._connection.execute(
            sql.SQL(
                "SELECT encode(sha256(convert_to(%s || string_agg(hash, '' ORDER BY hash), 'UTF8')), "
                "'hex') FROM (SELECT encode(sha256(convert_to(table_name || row::text, 'UTF8')), 'hex') AS hash FROM {}) AS rows"
            ).format(self.rows),
            [content],
        ).fetchone()
        assert row is not None, "an aggregate gives one row"
        return str(row[0])

    def _take_orphans(
        self, tables: Mapping[str, Table], references: Sequence[Check], stored: _Stored
    ) -> None:
        """Take out rows whose parent was, and then theirs, until none is left."""
        ordinal = 2000
        found = True
        while found:
            found = False
            for check in references:
                assert check.references is not None, "a reference check names its target"
                says = f"is in no good row of {'.'.join(check.references)}"
                ordinal += 1
                table = tables[check.table]
                if self._find(table, check, stored, ordinal, says=says):
                    found = True
                    self._take_out_typed(table)

    def _find(
        self, table: Table, check: Check, stored: _Stored, ordinal: int, *, says: str = ""
    ) -> int:
        """Note the rows of the typed table that break the check; give how many."""
        columns = [sql.Identifier("t", name) for name in check.columns]
        value: sql.Composable = sql.SQL("{}::text").format(columns[0])
        if len(columns) > 1:
            value = sql.SQL("concat_ws(', ', {})").format(sql.SQL(", ").join(columns))
        query = sql.SQL(
            "INSERT INTO {faults} SELECT {table}, t.{line}, {ordinal}, {column}, {rule}, "
            "{shown} || {says} FROM {typed} AS t WHERE {broken}"
        ).format(
            faults=self.faults,
            table=sql.Literal(table.name),
            line=sql.Identifier(LINE),
            ordinal=sql.Literal(ordinal),
            column=sql.Literal(", ".join(check.columns)),
            rule=sql.Literal(check.kind.value),
            shown=_SHOWN.format(value=value),
            says=sql.Literal(f" {says or check.says}"),
            typed=self._typed(table),
            broken=self._broken(table, check, stored),
        )
        return self._connection.execute(query).rowcount

    def _broken(self, table: Table, check: Check, stored: _Stored) -> sql.Composable:
        """Whether row `t` breaks the check, as a condition."""
        column = sql.Identifier("t", check.columns[0])
        match check.kind:
            case Kind.NOT_NULL:
                return sql.SQL("{} IS NULL").format(column)
            case Kind.RANGE:
                limits = [
                    sql.SQL("{} {} {}").format(column, sql.SQL(sign), sql.Literal(limit))
                    for sign, limit in (("<", check.minimum), (">", check.maximum))
                    if limit is not None
                ]
                return sql.SQL("({})").format(sql.SQL(" OR ").join(limits))
            case Kind.ALLOWED:
                values = sql.SQL(", ").join(sql.Literal(value) for value in check.allowed)
                return sql.SQL("{} NOT IN ({})").format(column, values)
            case Kind.UNIQUE:
                key = sql.SQL(", ").join(sql.Identifier(name) for name in check.columns)
                present = sql.SQL(" AND ").join(
                    sql.SQL("{} IS NOT NULL").format(sql.Identifier(name)) for name in check.columns
                )
                return sql.SQL(
                    "({}) IN (SELECT {key} FROM {} WHERE {present} GROUP BY {key} HAVING count(*) > 1)"
                ).format(
                    sql.SQL(", ").join(sql.Identifier("t", name) for name in check.columns),
                    self._typed(table),
                    key=key,
                    present=present,
                )
            case Kind.REFERENCE:
                return self._unknown(column, check, stored)
        raise AssertionError(f"{check.kind} is not a check of rows")

    def _unknown(self, column: sql.Identifier, check: Check, stored: _Stored) -> sql.Composable:
        assert check.references is not None, "a reference check names its target"
        other, key = check.references
        places = [sql.Identifier(SCHEMA, f"i{self._place.token:08x}_{other}_typed")]
        if other in stored:
            places.append(sql.Identifier(*stored[other]))
        unknown = [
            sql.SQL("NOT EXISTS (SELECT FROM {} AS o WHERE {} = {})").format(
                place, sql.Identifier("o", key), column
            )
            for place in places
        ]
        return sql.SQL("{} IS NOT NULL AND {}").format(column, sql.SQL(" AND ").join(unknown))

    def _typed(self, table: Table) -> sql.Identifier:
        return sql.Identifier(SCHEMA, self._place.typed(table))

    def _take_out_typed(self, table: Table) -> None:
        self._take_out(table, self._typed(table))

    def _take_out(self, table: Table, source: sql.Identifier) -> None:
        """Move the rows with a fault from a staging table to the faulty ones."""
        values = sql.SQL(", ").join(
            sql.SQL("{}, {}::text").format(
                sql.Literal(column.name), sql.Identifier("t", column.name)
            )
            for column in table.columns
        )
        taken = self._connection.execute(
            sql.SQL(
                "WITH out AS (DELETE FROM {source} AS t USING "
                "(SELECT DISTINCT line FROM {faults} WHERE table_name = {table}) AS f "
                "WHERE t.{line} = f.line RETURNING t.*) "
                "INSERT INTO {rows} SELECT {table}, t.{line}, jsonb_build_object({values}) "
                "FROM out AS t"
            ).format(
                source=source,
                faults=self.faults,
                table=sql.Literal(table.name),
                line=sql.Identifier(LINE),
                rows=self.rows,
                values=values,
            )
        ).rowcount
        self.counts[table.name] = self.counts.get(table.name, 0) + taken

    def _make(self) -> None:
        if self._made:
            return
        self._connection.execute(
            sql.SQL(
                "CREATE UNLOGGED TABLE {} (table_name text, line bigint, ordinal int, "
                "column_name text, rule text, reason text)"
            ).format(self.faults)
        )
        self._connection.execute(
            sql.SQL("CREATE UNLOGGED TABLE {} (table_name text, line bigint, row jsonb)").format(
                self.rows
            )
        )
        self._made = True
