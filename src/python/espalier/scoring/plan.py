"""Which entities belong to which part of a run; the same at each attempt."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg import sql

from espalier.errors import BadData
from espalier.features import history
from espalier.postgres.connect import Connection
from espalier.project import Project
from espalier.registry.download import FetchedModel

# About so many keys are looked at to cut them into even parts.
_SAMPLED_KEYS = 200_000


@dataclass(frozen=True, kw_only=True)
class Part:
    """A range of keys of a run, from `first` on up to and without `before`; None is unbounded.

    It says all that it belongs to, so that a file of it can be told from any other. `inputs` is the
    digest of what was known.
    """

    project: str
    as_of: str
    model_version: str
    model_digest: str
    inputs: str
    part: int
    parts: int
    first: str | None
    before: str | None

    @property
    def run(self) -> str:
        """The run in words."""
        return f"{self.project} as of {self.as_of} by version {self.model_version}"


@dataclass(frozen=True)
class Plan:
    """A run, `run_id` in `espalier.score_runs`, and its parts in the keys' order."""

    run_id: int
    inputs: str
    parts: tuple[Part, ...]


def make(
    connection: Connection,
    project: Project,
    model: FetchedModel,
    *,
    as_of: date,
    partitions: int,
    output: str,
    keeps_cut: bool,
) -> Plan:
    """The plan of a run; a run that was begun keeps the plan that it began with.

    Args:
        connection: The database; what is stored is committed.
        project: The product.
        model: Who scores.
        as_of: The day whose knowledge counts.
        partitions: How many parts; there are fewer when keys are few.
        output: Where scores go to.
        keeps_cut: Whether a run with another number of parts is taken up as it was cut.

    Raises:
        BadData: no features are known at `as_of`.
    """
    inputs = inputs_digest(connection, project, as_of=as_of)
    asked = 0 if keeps_cut else partitions
    run: list[Any] = [
        *(project.name, as_of, model.version, model.manifest.digest),
        *(inputs, output, asked),
    ]
    columns = "project, as_of, model_version, model_digest, inputs, output, asked"
    find = (
        f"SELECT id, bounds FROM espalier.score_runs "  # noqa: S608  # our own names
        f"WHERE ({columns}) = (%s, %s, %s, %s, %s, %s, %s)"
    )
    found = connection.execute(find, run).fetchone()
    if found is None:
        bounds = _bounds(connection, project, as_of, partitions)
        connection.execute(
            f"INSERT INTO espalier.score_runs ({columns}, bounds) "  # noqa: S608  # our own names
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [*run, bounds],
        )
        found = connection.execute(find, run).fetchone()
        assert found is not None, "it was inserted, here or by another run"
    connection.commit()
    run_id, bounds = found
    edges = [None, *bounds, None]
    return Plan(
        run_id,
        inputs,
        tuple(
            Part(
                project=project.name,
                as_of=str(as_of),
                model_version=model.version,
                model_digest=model.manifest.digest,
                inputs=inputs,
                part=number,
                parts=len(edges) - 1,
                first=edges[number],
                before=edges[number + 1],
            )
            for number in range(len(edges) - 1)
        ),
    )


def inputs_digest(connection: Connection, project: Project, *, as_of: date) -> str:
    """The sha256 of the project's snapshots up to a day: what is known then is in them.

    Tables only grow and each row knows its snapshot, so the same snapshots are the same rows.
    """
    rows = connection.execute(
        "SELECT id, digest FROM espalier.snapshots WHERE project = %s AND as_of <= %s ORDER BY id",
        [project.name, as_of],
    ).fetchall()
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _bounds(connection: Connection, project: Project, as_of: date, partitions: int) -> list[str]:
    """Keys that cut the known entities into about even parts, by a sample of them."""
    table = project.table(project.view.table)
    at = sql.SQL("%(at)s::timestamptz")
    relation = history.relation(project, table.name)
    parameters: dict[str, Any] = {
        "at": history.midnight(as_of),
        "ttl": project.view.ttl,
        "shares": [number / partitions for number in range(1, partitions)],
    }
    parts = {
        "key": sql.Identifier(project.entity.join_key),
        "known": sql.SQL("{event} <= {at} AND {event} >= {oldest} AND known_at <= %(at)s").format(
            event=sql.Identifier(project.event_time),
            at=history.comparable(table, project.event_time, at),
            oldest=history.comparable(
                table, project.event_time, sql.SQL("%(at)s::timestamptz - %(ttl)s::interval")
            ),
        ),
    }
    anyone = connection.execute(
        sql.SQL("SELECT 1 FROM {table} WHERE {known} LIMIT 1").format(**parts, table=relation),
        parameters,
    ).fetchone()
    if anyone is None:
        raise BadData(
            f"no features of {project.name} are known at {as_of}", fix="ingest that month first"
        )
    if partitions == 1:
        return []
    size = connection.execute(
        "SELECT greatest(reltuples, 1)::float8 FROM pg_class WHERE oid = %s::regclass",
        [relation.as_string(connection)],
    ).fetchone()
    assert size is not None, "the table was just read"
    percent = min(100.0, 100.0 * _SAMPLED_KEYS / size[0])
    sampled = relation
    if percent < 100:  # all of it
        sampled = sql.SQL("{} TABLESAMPLE SYSTEM ({})").format(relation, sql.Literal(percent))
    found = connection.execute(
        sql.SQL(
            "SELECT min({key})::text, "
            "(percentile_disc(%(shares)s::float8[]) WITHIN GROUP (ORDER BY {key}))::text[] "
            "FROM {table} WHERE {known}"
        ).format(**parts, table=sampled),
        parameters,
    ).fetchone()
    assert found is not None, "an aggregate gives a row"
    smallest, bounds = found
    # In the keys' order; where they are few, several shares fall on one.
    return [key for key in dict.fromkeys(bounds or ()) if key not in (None, smallest)]
