"""What the tests here monitor: a small project and its history in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
from psycopg import sql

from espalier.contract import Column, ColumnType, Table
from espalier.ingest import tables
from espalier.policies import Monitoring
from espalier.postgres.connect import Connection
from espalier.project import Calendar, Entity, FeatureView, Label, Project

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


def declare(name: str) -> Project:
    """A project of shops that close."""
    key = Column(name="shop_id", type=ColumnType.TEXT, description="the shop")
    day = Column(name="day", type=ColumnType.DATE, description="the day")
    kinds = (ColumnType.DOUBLE, ColumnType.INTEGER, ColumnType.DOUBLE, ColumnType.INTEGER)
    features = tuple(
        Column(name=feature, type=kind, description=feature, nullable=feature == "gap")
        for feature, kind in zip(FEATURES, kinds, strict=True)
    )
    closed = Column(name="closed", type=ColumnType.BOOLEAN, description="closed since")
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
            horizon=timedelta(days=30),
            positive_means="closes",
        ),
        estimator="none:none",
        baseline="none:none",
        calendar=Calendar(first=date(1997, 1, 31)),
        # Each day is a case of its own.
        monitoring=Monitoring(windows_k=1, windows_n=1),
    )


SHOP, TINY = declare("shop"), declare("tiny")


def store(connection: Connection, project: Project, shops: int) -> None:
    """A history of `shops` entities, each row known when it happened."""
    random = np.random.default_rng(7)
    tables.ensure(connection, project)
    made = connection.execute(
        "INSERT INTO espalier.snapshots (project, as_of, revision, digest, files, row_counts, "
        "validation, created_by) VALUES (%s, '1997-07-31', 1, '', '{}', '{}', '{}', 'test') "
        "RETURNING id",
        [project.name],
    ).fetchone()
    assert made is not None
    names = [f"s{number:04}" for number in range(shops)]
    for day, moved in FEATURE_DAYS.items():
        amount = random.lognormal(3, 1, shops) + (50 if "amount" in moved else 0)
        visits = random.poisson(3, shops) + (2 if "visits" in moved else 0)
        gap = [None if "gap" in moved or random.random() < 0.4 else random.random() for _ in names]
        rows = zip(names, amount.tolist(), visits.tolist(), gap, strict=True)
        facts = [(*row, 1) for row in rows]
        insert(connection, project, "facts", day=day, known=day, snapshot=made[0], rows=facts)
    for day, share in LABEL_DAYS.items():
        closed = (random.random(shops) < share).tolist()
        known = day + timedelta(days=30)
        pairs = list(zip(names, closed, strict=True))
        insert(connection, project, "endings", day=day, known=known, snapshot=made[0], rows=pairs)
    connection.commit()


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
