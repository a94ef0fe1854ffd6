"""Was served what the history says? A sample of the prediction log, computed again.

Online and offline features come from the same rows by two ways. A sample of logged predictions is
looked up in the history as it was known when each was served, and the values are compared.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg import sql

from espalier.features import history
from espalier.features.columns import Kind, read_columns
from espalier.postgres.connect import Connection, connect
from espalier.project import Project

# Served values passed through no arithmetic, so only their last bit may differ.
_RELATIVE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """Of `rows` predictions `mismatched` had another value than the history in some feature.

    `unknown` of them were of rows that the history did not know then, and count as mismatched.
    `stale` were served though a newer row was known; their values are compared with the row that
    was served, so they need not be mismatched. `columns` counts mismatches by feature.
    """

    rows: int
    mismatched: int
    unknown: int
    stale: int
    columns: Mapping[str, int]
    run_id: str

    @property
    def ratio(self) -> float:
        """The share of predictions with a mismatch; 0 of none."""
        return self.mismatched / self.rows if self.rows else 0.0


def check(project: Project, *, as_of: date, dsn: str) -> Consistency:
    """Compare `monitoring.sample` predictions, served in the time up to the end of `as_of`.

    The sample is drawn anew for each day, the same at each run of a day. Stored, also when nothing
    was served.

    Raises:
        ConfigurationError: nothing of the project was ingested yet.
        DependencyUnreachable: PostgreSQL does not answer.
    """
    with connect(dsn) as connection:
        served, known, found, newer = _read(connection, project, as_of)
        different = ~(
            np.isclose(served, known, rtol=_RELATIVE, atol=0.0)
            | (np.isnan(served) & np.isnan(known))
        )
        different[~found] = True
        result = Consistency(
            rows=len(served),
            mismatched=int(different.any(axis=1).sum()),
            unknown=int((~found).sum()),
            stale=int(newer.sum()),
            columns={
                name: int(different[:, number].sum())
                for number, name in enumerate(project.view.features)
            },
            run_id=str(uuid.uuid4()),
        )
        _store(connection, project, as_of, result)
    return result


def _read(
    connection: Connection, project: Project, as_of: date
) -> tuple[
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.bool_],
    npt.NDArray[np.bool_],
]:
    """Served and known features [n, features], whether known at all, whether a newer was known."""
    table = project.table(project.view.table)
    features = project.view.features
    until = history.midnight(as_of) + timedelta(days=1)
    query = sql.SQL(
        "SELECT same.event IS NOT NULL, newest.event IS NOT NULL, {served}, {known} FROM ("
        " SELECT entity_id, served_at, feature_time, features FROM espalier.predictions"
        " WHERE project = %(project)s AND served_at >= %(since)s AND served_at < %(until)s"
        " AND cardinality(features) = %(width)s AND NOT shadow"
        " AND feature_time IS NOT NULL"
        # Seeded by the day: another sample each day, the same one each time.
        " ORDER BY hashtextextended(entity_id, %(seed)s), served_at LIMIT %(sample)s) AS sampled "
        "LEFT JOIN LATERAL (SELECT {event} AS event, {names} FROM {table}"
        " WHERE {key} = {typed} AND {event_column} = {at_event} AND known_at <= served_at"
        " ORDER BY known_at DESC, snapshot_id DESC LIMIT 1) AS same ON true "
        "LEFT JOIN LATERAL (SELECT {event} AS event FROM {table}"
        " WHERE {key} = {typed} AND {event_column} > {at_event} AND {event_column} <= {at_served}"
        " AND known_at <= served_at LIMIT 1) AS newest ON true"
    ).format(
        served=sql.SQL(", ").join(
            sql.SQL("coalesce(features[{}], 'NaN')").format(sql.Literal(number + 1))
            for number in range(len(features))
        ),
        known=sql.SQL(", ").join(
            sql.SQL("coalesce(same.{}::double precision, 'NaN')").format(sql.Identifier(name))
            for name in features
        ),
        names=sql.SQL(", ").join(map(sql.Identifier, features)),
        event=history.as_instant(table, project.event_time),
        event_column=sql.Identifier(project.event_time),
        at_event=history.comparable(table, project.event_time, sql.SQL("feature_time")),
        at_served=history.comparable(table, project.event_time, sql.SQL("served_at")),
        key=sql.Identifier(project.entity.join_key),
        typed=sql.SQL("entity_id::{}").format(
            sql.SQL(table.column(project.entity.join_key).type.value)
        ),
        table=history.relation(project, table.name),
    )
    numbers: list[Kind] = ["float8"] * (2 * len(features))
    parameters: dict[str, Any] = {
        "project": project.name,
        "since": until - project.monitoring.served_within,
        "until": until,
        "width": len(features),
        "sample": project.monitoring.sample,
        "seed": as_of.toordinal(),
    }
    found, newer, *values = read_columns(connection, query, ["bool", "bool", *numbers], parameters)
    matrix = np.array(values, dtype=np.float64).reshape(2, len(features), len(found))
    return matrix[0].T, matrix[1].T, found, newer


def _store(connection: Connection, project: Project, as_of: date, result: Consistency) -> None:
    key = (result.run_id, project.name, as_of)
    rows: list[tuple[Any, ...]] = [
        (*key, name, result.rows, mismatches, None, None)
        for name, mismatches in result.columns.items()
    ]
    rows.append((*key, None, result.rows, result.mismatched, result.unknown, result.stale))
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO espalier.online_offline (run_id, project, as_of, column_name, rows, "
            "mismatches, unknown, stale) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            rows,
        )
