"""Scores as a partition of `espalier.scores`, filled by COPY and attached when it is whole."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from psycopg import sql

from espalier.errors import BadData
from espalier.postgres.connect import connect
from espalier.scoring import binary_copy
from espalier.scoring.plan import Part, Plan


@dataclass(frozen=True)
class PostgresSink:
    """The partition of one run.

    A part's rows and its mark in `espalier.score_parts` come in one transaction, so a part that two
    workers write, as when one was taken for dead, is there once: the second waits for the first,
    finds the mark and leaves it.
    """

    dsn: str
    run_id: int

    @property
    def _table(self) -> sql.Identifier:
        return sql.Identifier("espalier", f"scores_{self.run_id}")

    def missing(self, plan: Plan) -> list[Part]:
        """The parts without a mark; makes the table of the run."""
        with connect(self.dsn) as connection:
            connection.execute(
                sql.SQL(
                    "CREATE TABLE IF NOT EXISTS {} (LIKE espalier.scores, CHECK (run_id = {}))"
                ).format(self._table, sql.Literal(self.run_id))
            )
            rows = connection.execute(
                "SELECT part FROM espalier.score_parts WHERE run_id = %s", [self.run_id]
            ).fetchall()
        done = {row[0] for row in rows}
        return [part for part in plan.parts if part.part not in done]

    def write(self, part: Part, table: pa.Table) -> None:
        """Store one part's rows and its mark, unless the mark is there."""
        with connect(self.dsn) as connection:
            marked = connection.execute(
                "INSERT INTO espalier.score_parts (run_id, part, rows) VALUES (%s, %s, %s) "
                "ON CONFLICT DO NOTHING",
                [self.run_id, part.part, len(table)],
            )
            if marked.rowcount == 0:
                return
            target = sql.SQL(
                "COPY {} (run_id, entity_id, score, prediction, feature_time, probabilities) "
                "FROM STDIN (FORMAT BINARY)"
            ).format(self._table)
            with connection.cursor() as cursor, cursor.copy(target) as copy:
                for rows in binary_copy.score_rows(self.run_id, table, table.column_names[0]):
                    copy.write(rows)

    def close(self, plan: Plan) -> int:  # noqa: ARG002  # as any sink
        """Attach the partition, whose primary key says that no entity is there twice."""
        with connect(self.dsn) as connection:
            found = connection.execute(
                "SELECT rows, completed_at IS NOT NULL FROM espalier.score_runs WHERE id = %s "
                "FOR UPDATE",
                [self.run_id],
            ).fetchone()
            assert found is not None, "the plan made it"
            if found[1]:
                rows: int = found[0]
                return rows
            counted = connection.execute(
                sql.SQL(
                    "SELECT (SELECT count(*) FROM {}), "
                    "(SELECT sum(rows) FROM espalier.score_parts WHERE run_id = {})"
                ).format(self._table, sql.Literal(self.run_id))
            ).fetchone()
            assert counted is not None, "aggregates give a row"
            if counted[0] != counted[1]:
                raise BadData(
                    f"espalier.scores_{self.run_id} holds {counted[0]} rows of {counted[1]} that "
                    "were written",
                    fix=f"delete its marks from espalier.score_parts (run_id {self.run_id}), empty "
                    "the table and score again",
                )
            connection.execute(
                sql.SQL(
                    "ALTER TABLE espalier.scores ATTACH PARTITION {} FOR VALUES IN ({})"
                ).format(self._table, sql.Literal(self.run_id))
            )
            connection.execute(
                "UPDATE espalier.score_runs SET rows = %s, completed_at = clock_timestamp() "
                "WHERE id = %s",
                [counted[0], self.run_id],
            )
            stored: int = counted[0]
            return stored
