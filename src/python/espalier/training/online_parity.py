"""Compares the features that the server would read with those that training reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import psycopg
from psycopg import sql

from espalier.features import layout
from espalier.features.point_in_time import features_at
from espalier.postgres.connect import Connection
from espalier.project import Project


@dataclass(frozen=True)
class OnlineParity:
    """What a sample of entities showed: of `compared` ones `differing` differ, `example` says how.

    `skipped` says why nothing could be compared. `types` are the online columns' PostgreSQL types,
    empty when there is no online table.
    """

    compared: int = 0
    differing: int = 0
    example: str = ""
    skipped: str = ""
    types: tuple[tuple[str, str], ...] = ()


def check(connection: Connection, project: Project, *, as_of: date) -> OnlineParity:
    """Compare a seeded sample of the entities known at `as_of`.

    A row that is online with the event time that the history gives must hold the very same values.
    A row of another event time was materialized at another day and cannot be compared. An entity
    that is not online differs, if others are as new as the history. Ends the open transaction.
    """
    types = _column_types(connection, project)
    if not types:
        return OnlineParity(skipped="nothing is online yet: no materialize has run")
    history = features_at(connection, project, when=as_of)
    if history.empty:
        return OnlineParity(skipped=f"no features are known at {as_of}", types=types)
    key, features = project.entity.join_key, project.view.features
    size = min(project.gate.online_sample, len(history))
    generator = np.random.default_rng(project.seed)
    sample = history.iloc[np.sort(generator.choice(len(history), size, replace=False))]
    query = layout.select_rows(project.name, project.view.name, key, features)
    try:
        rows = connection.execute(query, [sample[key].tolist()]).fetchall()
    except psycopg.errors.UndefinedColumn as error:
        connection.rollback()
        what = error.diag.message_primary
        return OnlineParity(skipped=f"the online table is of another view: {what}", types=types)
    connection.rollback()
    online: dict[object, tuple[datetime, np.ndarray]] = {
        row[0]: (row[1], np.array(row[2:], dtype=np.float64)) for row in rows
    }
    compared = differing = 0
    absent: list[object] = []
    example = ""
    columns = zip(
        sample[key].tolist(),
        sample["feature_time"].tolist(),
        sample[list(features)].to_numpy(dtype=np.float64),
        strict=True,
    )
    for entity, when, values in columns:
        if entity not in online:
            absent.append(entity)
            continue
        at, there = online[entity]
        if at != when:
            continue
        compared += 1
        wrong = ~((values == there) | (np.isnan(values) & np.isnan(there)))
        if wrong.any():
            differing += 1
            place = int(np.argmax(wrong))
            example = example or (
                f"{features[place]} of {key} {entity} is {there[place]:g} online and "
                f"{values[place]:g} in the history"
            )
    if not compared:
        held = max((at for at, _ in online.values()), default=None)
        what = f"features of {held.date()}" if held else "none of the sampled entities"
        return OnlineParity(skipped=f"the online store holds {what}, not of {as_of}", types=types)
    if absent:
        differing += len(absent)
        example = example or f"{key} {absent[0]} is in the history and not online"
    return OnlineParity(compared + len(absent), differing, example, "", types)


def _column_types(connection: Connection, project: Project) -> tuple[tuple[str, str], ...]:
    table = layout.table_name(project.name, project.view.name)
    found = connection.execute(
        sql.SQL(
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position"
        ),
        [layout.SCHEMA, table],
    ).fetchall()
    connection.rollback()
    return tuple((str(name), str(kind)) for name, kind in found)
