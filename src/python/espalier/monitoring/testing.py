"""What the tests here monitor: a small project and its history in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
from psycopg import sql

from espalier.contract import Column, ColumnType, Table
from espalier.ingest import tables
from espalier.policies import Monitoring, Validation
from espalier.postgres.connect import Connection
from espalier.project import Calendar, Entity, FeatureView, Label, Project, Task

FEATURES = ("amount", "visits", "gap", "constant")
# Features of each month end: which columns are moved, against the others of one population.
FEATURE_DAYS = {
    date(1997, 1, 31): "",
    date(1997, 2, 28): "",
    date(1997, 3, 31): "",
    date(1997, 4, 30): "",
    date(1997, 5, 31): "amount visits",
    date(1997, 6, 30): "amount",
    date(1997, 7, 31): "gap",
}
# The share of positive labels of each label time; known 30 days later.
LABEL_DAYS = {
    date(1997, 1, 31): 0.8,
    date(1997, 2, 28): 0.8,
    date(1997, 3, 31): 0.8,
    date(1997, 4, 30): 0.8,
    date(1997, 5, 31): 0.5,
}


CLASSES = ("small", "middle", "large")
_BY_TIME = Validation()


def declare(
    name: str,
    *,
    label: ColumnType = ColumnType.BOOLEAN,
    classes: tuple[str, ...] = (),
    horizon: timedelta = timedelta(days=30),
    validation: Validation = _BY_TIME,
) -> Project:
    """A project of shops that close, or of what they are otherwise."""
    key = Column(name="shop_id", type=ColumnType.TEXT, description="the shop")
    day = Column(name="day", type=ColumnType.DATE, description="the day")
    kinds = (ColumnType.DOUBLE, ColumnType.INTEGER, ColumnType.DOUBLE, ColumnType.INTEGER)
    features = tuple(
        Column(name=feature, type=kind, description=feature, nullable=feature == "gap")
        for feature, kind in zip(FEATURES, kinds, strict=True)
    )
    closed = Column(name="closed", type=label, description="closed since")
    return Project(
        name=name,
        description="Will this shop close?",
        entity=Entity(name="shop", join_key="shop_id", description="a shop"),
        tables=(
            Table(
                name="facts",
                key=("shop_id", "day"),
                event_time="day",
                columns=(key, day, *features),
            ),
            Table(
                name="endings", key=("shop_id", "day"), event_time="day", columns=(key, day, closed)
            ),
        ),
        view=FeatureView(name="monthly", table="facts", features=FEATURES, ttl=timedelta(days=45)),
        label=Label(
            table="endings",
            column="closed",
            time="day",
            horizon=horizon,
            positive_means="closes",
            classes=classes,
        ),
        validation=validation,
        estimator="none:none",
        baseline="none:none",
        calendar=Calendar(first=date(1997, 1, 31)),
        # Each day is a case of its own.
        monitoring=Monitoring(windows_k=1, windows_n=1),
    )


SHOP, TINY = declare("shop"), declare("tiny")
SIZES = declare("sizes", label=ColumnType.TEXT, classes=CLASSES)
SALES = declare("sales", label=ColumnType.DOUBLE)


def snapshot(connection: Connection, project: Project, revision: int = 1) -> int:
    """The id of a snapshot for rows to belong to."""
    made = connection.execute(
        "INSERT INTO espalier.snapshots (project, as_of, revision, digest, files, row_counts, "
        "validation, created_by) VALUES (%s, '1997-07-31', %s, '', '{}', '{}', '{}', 'test') "
        "RETURNING id",
        [project.name, revision],
    ).fetchone()
    assert made is not None
    number: int = made[0]
    return number


def store(connection: Connection, project: Project, shops: int) -> None:
    """A history of `shops` entities, each row known when it happened."""
    random = np.random.default_rng(7)
    tables.ensure(connection, project)
    made = snapshot(connection, project)
    names = [f"s{number:04}" for number in range(shops)]
    for day, moved in FEATURE_DAYS.items():
        amount = random.lognormal(3, 1, shops) + (50 if "amount" in moved else 0)
        visits = random.poisson(3, shops) + (2 if "visits" in moved else 0)
        gap = [None if "gap" in moved or random.random() < 0.4 else random.random() for _ in names]
        rows = zip(names, amount.tolist(), visits.tolist(), gap, strict=True)
        facts = [(*row, 1) for row in rows]
        insert(connection, project, "facts", day=day, known=day, snapshot=made, rows=facts)
    for day, share in LABEL_DAYS.items():
        closed = _labels(project, random.random(shops), share)
        known = day + timedelta(days=30)
        pairs = list(zip(names, closed, strict=True))
        insert(connection, project, "endings", day=day, known=known, snapshot=made, rows=pairs)
    connection.commit()


def _labels(project: Project, drawn: npt.NDArray[np.float64], share: float) -> list[object]:
    """Labels by one draw a shop: `share` of them true, of the first class, or below 10."""
    match project.task:
        case Task.BINARY:
            found: list[object] = (drawn < share).tolist()
        case Task.MULTICLASS:
            places = np.searchsorted([share, (1 + share) / 2], drawn)
            found = [CLASSES[place] for place in places.tolist()]
        case Task.REGRESSION:
            found = (10 * drawn / share).tolist()
    return found


def insert(
    connection: Connection,
    project: Project,
    table: str,
    *,
    day: date,
    known: date,
    snapshot: int,
    rows: Sequence[tuple[object, ...]],
) -> None:
    """Rows of one day's event time that became known on another."""
    with connection.cursor() as cursor:
        copy = sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(project.name, table))
        with cursor.copy(copy) as stream:
            for key, *values in rows:
                stream.write_row((key, day, *values, f"{known} 00:00Z", snapshot))
