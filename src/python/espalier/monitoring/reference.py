"""What a model was trained on, as statistics that are computed once a version and stored.

Training's rows are read when a version is checked for the first time. Every later check reads some
thousand numbers a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from psycopg.types.json import Jsonb

from espalier.errors import BadData
from espalier.features import point_in_time
from espalier.monitoring import sketch
from espalier.monitoring.sketch import Sketch
from espalier.monitoring.target import ClassLabels, Labels, TargetLabels
from espalier.postgres.connect import Connection
from espalier.project import Project, Task
from espalier.training.split import split_rows

_KINDS = {Task.BINARY: Labels, Task.MULTICLASS: ClassLabels, Task.REGRESSION: Sketch}


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The rows that training as of `trained_as_of` used, those of `first` to `last` label time.

    `rows` of them had labels, `labels`.
    """

    trained_as_of: date
    rows: int
    labels: TargetLabels
    first: date
    last: date
    columns: Mapping[str, Sketch]

    @property
    def span(self) -> str:
        """The label times in words."""
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"

    @property
    def note(self) -> str:
        """The reference in words."""
        return f"{self.rows} labelled rows of {self.span}, as known at {self.trained_as_of}"


def obtain(
    connection: Connection, project: Project, *, trained_as_of: date, model_version: str | None
) -> Reference:
    """The stored statistics of a model version, or those of its training rows, which are stored.

    Statistics of another training day or other features are made anew: versions of a registry that
    was emptied begin again at 1. Without a version nothing is stored. Committed by the caller.

    Raises:
        BadData: no labelled rows are known at `trained_as_of`.
    """
    if model_version is not None:
        found = _stored(connection, project, model_version)
        if (
            found is not None
            and found.trained_as_of == trained_as_of
            and set(found.columns) == set(project.view.features)
            and isinstance(found.labels, _KINDS[project.task])
        ):
            return found
    made = of_training(connection, project, trained_as_of=trained_as_of)
    if model_version is not None:
        _store(connection, project, model_version, made)
    return made


def of_training(connection: Connection, project: Project, *, trained_as_of: date) -> Reference:
    """The statistics of the rows that training as of a day uses.

    Those are as in `training.split`: of the label times at least the label's horizon before the
    newest one, or of the entities that validate no model. While labels do not reach that far back,
    and so no model can be there, those of the oldest label time.

    Raises:
        BadData: no labelled rows are known.
        CheckRefused: the entities are too few to be split.
    """
    trained = point_in_time.training_set(connection, project, as_of=trained_as_of)
    if trained.empty:
        raise BadData(
            f"no labelled rows of {project.name} are known at {trained_as_of}, so there is nothing "
            f"to compare with",
            fix="ingest the months before it",
        )
    rows = _used(trained, project)
    return Reference(
        trained_as_of=trained_as_of,
        rows=len(rows),
        labels=_labels(project, rows["label"]),
        first=_day(rows["label_time"].min()),
        last=_day(rows["label_time"].max()),
        columns=sketch.of_frame(rows, project.view.features),
    )


def _used(known: pd.DataFrame, project: Project) -> pd.DataFrame:
    """The rows that are not kept to validate."""
    if project.validation.by == "entity":
        return known.loc[split_rows(known, project).train.index]
    times = known["label_time"]
    oldest, newest = times.min(), times.max()
    used: pd.Series[bool] = times <= max(oldest, newest - project.label.horizon)
    if not project.label.horizon and oldest < newest:
        used = times < newest
    return known.loc[used]


def _labels(project: Project, column: pd.Series[Any]) -> TargetLabels:
    match project.task:
        case Task.BINARY:
            return Labels(rows=len(column), positives=int(column.sum()))
        case Task.MULTICLASS:
            counts = column.value_counts()
            return ClassLabels(counts={c: int(counts.get(c, 0)) for c in project.label.classes})
        case Task.REGRESSION:
            return sketch.of_values(column.to_numpy(dtype=np.float64))


def _day(instant: pd.Timestamp) -> date:
    return instant.to_pydatetime().date()


def _stored(connection: Connection, project: Project, model_version: str) -> Reference | None:
    found = connection.execute(
        "SELECT trained_as_of, rows, first_label_time, last_label_time, positives, label_counts, "
        "label_spread, label_quantiles "
        "FROM espalier.drift_references WHERE project = %s AND model_version = %s",
        [project.name, model_version],
    ).fetchone()
    if found is None:
        return None
    trained_as_of, rows, first, last, positives, counts, spread, quantiles = found
    labels: TargetLabels
    if counts is not None:
        labels = ClassLabels(counts=counts)
    elif quantiles is not None:
        labels = Sketch(rows, 0, spread, np.array(quantiles, dtype=np.float64))
    else:
        labels = Labels(rows=rows, positives=positives)
    columns = connection.execute(
        "SELECT column_name, rows, nulls, spread, quantiles FROM espalier.drift_reference_columns "
        "WHERE project = %s AND model_version = %s",
        [project.name, model_version],
    ).fetchall()
    return Reference(
        trained_as_of=trained_as_of,
        rows=rows,
        labels=labels,
        first=first,
        last=last,
        columns={
            name: Sketch(count, nulls, spread, np.array(quantiles, dtype=np.float64))
            for name, count, nulls, spread, quantiles in columns
        },
    )


def _store(
    connection: Connection, project: Project, model_version: str, reference: Reference
) -> None:
    key = (project.name, model_version)
    connection.execute(
        "DELETE FROM espalier.drift_references WHERE project = %s AND model_version = %s", key
    )
    labels = reference.labels
    connection.execute(
        "INSERT INTO espalier.drift_references (project, model_version, trained_as_of, rows, "
        "first_label_time, last_label_time, positives, label_counts, label_spread, "
        "label_quantiles) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            *(*key, reference.trained_as_of, reference.rows, reference.first, reference.last),
            labels.positives if isinstance(labels, Labels) else None,
            Jsonb(dict(labels.counts)) if isinstance(labels, ClassLabels) else None,
            labels.spread if isinstance(labels, Sketch) else None,
            labels.quantiles.tolist() if isinstance(labels, Sketch) else None,
        ),
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO espalier.drift_reference_columns (project, model_version, column_name, "
            "rows, nulls, spread, quantiles) VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    *(*key, name, column.rows, column.nulls),
                    *(column.spread, column.quantiles.tolist()),
                )
                for name, column in reference.columns.items()
            ],
        )
