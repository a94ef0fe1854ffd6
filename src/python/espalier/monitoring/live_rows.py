"""Which prediction answers for which label: the two joined, as NumPy columns.

A label of time t tells what happened in the horizon after t. The prediction that answers for it is
the last one served for the entity from t on and within the declared `served_within`, of features
that are not newer than t (features that the caller gave have no time and are left out). Earlier
ones were about another horizon. Later ones, or ones of newer features, could have known part of
what the label tells. With a horizon of 0 a label may come with its features: then only what was
served before it was known is a prediction. When two versions served an entity in that time, each
answers for what it served, so numbers are by version and by role.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, LiteralString

import numpy as np
import numpy.typing as npt
from psycopg import sql

from espalier.features import history, labels
from espalier.features.columns import Array, Kind, read_columns
from espalier.postgres.connect import Connection
from espalier.project import Project


@dataclass(frozen=True, eq=False)
class Answers:
    """The scores that one version served in one role, and what came true; one row an entity.

    `labels` are bool, places of classes or float64, `scores` [n] or with several classes [n, k]. `entities` numbers the labelled entities of the label time, the same for every
    version, in rising order; `feature_times` are datetime64 in UTC. `unserved` labels have no row.
    """

    model_version: str
    shadow: bool
    entities: npt.NDArray[np.int64]
    labels: Array
    scores: npt.NDArray[np.float64]
    feature_times: npt.NDArray[np.datetime64]
    unserved: int


def label_times(connection: Connection, project: Project, *, as_of: date) -> dict[date, int]:
    """The label times of which labels are known by `as_of`, oldest first.

    With each goes the newest snapshot that added to its labels or revised one.
    """
    rows = connection.execute(
        _format(
            project,
            "SELECT {instant} AS at, max(snapshot_id) FROM {labels} WHERE known_at <= %(as_of)s "
            "GROUP BY at HAVING bool_or({label} IS NOT NULL) ORDER BY at",
        ),
        {"as_of": history.midnight(as_of)},
    ).fetchall()
    return {instant.date(): snapshot for instant, snapshot in rows}


def answers(
    connection: Connection, project: Project, *, label_time: date, as_of: date
) -> list[Answers]:
    """What each version served that the labels of `label_time`, as known by `as_of`, answer.

    Raises:
        BadData: a label is of no declared class.
    """
    query = _format(
        project,
        'WITH labels AS (SELECT row_number() OVER (ORDER BY entity COLLATE "C") AS number, * FROM ('
        " SELECT DISTINCT ON ({key}) {key}::text AS entity, {label} AS label{labelled_at}"
        " FROM {labels} WHERE {instant} = %(time)s AND known_at <= %(as_of)s"
        " ORDER BY {key}, known_at DESC, snapshot_id DESC) AS newest WHERE label IS NOT NULL), "
        "served AS (SELECT DISTINCT ON (model_version, shadow, entity_id) model_version,"
        " shadow, entity_id, score, probabilities, feature_time FROM espalier.predictions{before}"
        " WHERE project = %(project)s AND served_at >= %(time)s"
        " AND served_at < %(time)s + %(within)s::interval AND feature_time <= %(time)s"
        "{of_classes} ORDER BY model_version, shadow, entity_id, served_at DESC) "
        "SELECT number, shadow, {label_value}, feature_time, {scores}, model_version FROM labels"
        " JOIN served ON entity_id = entity ORDER BY model_version, shadow, number",
    )
    classes = len(project.label.classes)
    numbers: list[Kind] = ["float8"] * max(classes, 1)
    parameters: dict[str, Any] = {
        "project": project.name,
        "time": history.midnight(label_time),
        "as_of": history.midnight(as_of),
        "within": project.monitoring.served_within,
        "classes": classes,
    }
    kinds = ("int8", "bool", labels.KINDS[project.task], "timestamptz", *numbers, "text")
    number, shadow, label, feature_time, *columns, version = read_columns(
        connection, query, kinds, parameters
    )
    if classes:
        labels.require_classes(project, label)
    score = np.column_stack(columns) if classes else columns[0]
    total = connection.execute(
        _format(
            project,
            "SELECT count(DISTINCT {key}) FROM {labels} "
            "WHERE {instant} = %(time)s AND known_at <= %(as_of)s AND {label} IS NOT NULL",
        ),
        parameters,
    ).fetchone()
    assert total is not None, "an aggregate gives a row"
    found = []
    for name in sorted(set(version), key=lambda text: (len(text), text)):
        for role in (False, True):
            rows = (version == name) & (shadow == role)
            if rows.any():
                found.append(
                    Answers(
                        model_version=name,
                        shadow=role,
                        entities=number[rows],
                        labels=label[rows],
                        scores=score[rows],
                        feature_times=feature_time[rows],
                        unserved=int(total[0] - rows.sum()),
                    )
                )
    return found


def _format(project: Project, query: LiteralString) -> sql.Composed:
    table = project.table(project.label.table)
    return sql.SQL(query).format(
        key=sql.Identifier(project.entity.join_key),
        label=sql.Identifier(project.label.column),
        labels=history.relation(project, table.name),
        instant=history.as_instant(table, project.label.time),
        label_value=labels.expression(project, sql.Identifier("label")),
        scores=_scores(project),
        of_classes=sql.SQL(
            " AND cardinality(probabilities) = %(classes)s" if project.label.classes else ""
        ),
        labelled_at=sql.SQL("" if project.label.horizon else _LABELLED_AT).format(
            key=sql.Identifier(project.entity.join_key)
        ),
        before=sql.SQL("" if project.label.horizon else _BEFORE),
    )


_LABELLED_AT: LiteralString = ", min(known_at) OVER (PARTITION BY {key}) AS labelled_at"
_BEFORE: LiteralString = " JOIN labels ON entity_id = entity AND served_at < labelled_at"


def _scores(project: Project) -> sql.Composable:
    if not project.label.classes:
        return sql.SQL("score")
    places = range(1, len(project.label.classes) + 1)
    return sql.SQL(", ").join(
        sql.SQL("coalesce(probabilities[{}], 'NaN')").format(sql.Literal(place)) for place in places
    )
