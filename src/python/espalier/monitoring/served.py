"""What was served, from the prediction log, as columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from psycopg import sql

from espalier.features.columns import Kind, read_columns
from espalier.features.history import midnight
from espalier.monitoring import sketch
from espalier.monitoring.sketch import Sketch
from espalier.postgres.connect import Connection
from espalier.project import Project


@dataclass(frozen=True, kw_only=True)
class Served:
    """The features of one event time as they were served, one row an entity."""

    feature_day: date
    entities: int
    columns: Mapping[str, Sketch]


def newest(connection: Connection, project: Project, *, as_of: date) -> Served | None:
    """The newest features that were served in the declared time up to the end of `as_of`.

    Of an entity served more than once its last row counts. Rows with another number of features,
    which an older view had, are left out. None when nothing was served.
    """
    until = midnight(as_of) + timedelta(days=1)
    parameters = {
        "project": project.name,
        "since": until - project.monitoring.served_within,
        "until": until,
        "width": len(project.view.features),
    }
    chosen = sql.SQL(
        "FROM espalier.predictions WHERE project = %(project)s AND served_at >= %(since)s "
        "AND served_at < %(until)s AND cardinality(features) = %(width)s AND NOT shadow"
    )
    found = connection.execute(
        sql.SQL("SELECT max(feature_time) {}").format(chosen), parameters
    ).fetchone()
    feature_time: datetime | None = None if found is None else found[0]
    if feature_time is None:
        return None
    numbers = sql.SQL(", ").join(
        sql.SQL("coalesce(features[{}], 'NaN')").format(sql.Literal(number))
        for number in range(1, len(project.view.features) + 1)
    )
    query = sql.SQL(
        "SELECT {numbers} FROM (SELECT DISTINCT ON (entity_id) features {chosen} "
        "AND feature_time = %(feature_time)s ORDER BY entity_id, served_at DESC) AS served"
    ).format(numbers=numbers, chosen=chosen)
    kinds: list[Kind] = ["float8"] * len(project.view.features)
    columns = read_columns(connection, query, kinds, {**parameters, "feature_time": feature_time})
    return Served(
        feature_day=feature_time.astimezone(UTC).date(),
        entities=len(columns[0]),
        columns={
            name: sketch.of_values(values)
            for name, values in zip(project.view.features, columns, strict=True)
        },
    )
