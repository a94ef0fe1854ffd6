"""A label's values as the task has them: true or false, a class's name, or a number."""

from __future__ import annotations

import numpy as np
from psycopg import sql

from espalier.errors import BadData
from espalier.features.columns import Array, Kind
from espalier.project import Project, Task

KINDS: dict[Task, Kind] = {
    Task.BINARY: "bool",
    Task.MULTICLASS: "int8",
    Task.REGRESSION: "float8",
}


def expression(project: Project, label: sql.Composable) -> sql.Composable:
    """A label that is not null, as SQL of a type that `read_columns` reads by `KINDS`.

    A class is its place among the declared ones, from 0 on, and -1 when it is none of them.
    """
    match project.task:
        case Task.BINARY:
            return label
        case Task.MULTICLASS:
            return sql.SQL(
                "(coalesce(array_position({}::text[], {}::text), 0) - 1)::bigint"
            ).format(sql.Literal(list(project.label.classes)), label)
        case Task.REGRESSION:
            return sql.SQL("{}::double precision").format(label)


def values(project: Project, read: Array) -> Array:
    """What was read of `expression` as labels: bool, objects of texts, or float64.

    Raises:
        BadData: a label is of no declared class.
    """
    if project.task is not Task.MULTICLASS:
        return read
    require_classes(project, read)
    return np.array(project.label.classes, dtype=object)[read]


def require_classes(project: Project, places: Array) -> None:
    """Refuse a place that is -1.

    Raises:
        BadData: a label is of no declared class.
    """
    if count := int((places < 0).sum()):
        label = project.label
        raise BadData(
            f"{count} labels in {project.name}.{label.table} have a {label.column} that is none of "
            f"the {len(label.classes)} declared classes",
            fix="declare all that were ever stored in Label(classes=...)",
        )
