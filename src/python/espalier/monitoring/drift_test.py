"""Drift checks on PostgreSQL with the real Evidently: each day of one history is a case."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from psycopg import sql

from espalier.contract import Column, ColumnType, Table
from espalier.errors import BadData, ConfigurationError, DependencyUnreachable
from espalier.features.point_in_time import training_set
from espalier.ingest import tables
from espalier.monitoring.drift import DRIFT_SHARE, check_drift
from espalier.postgres import embedded
from espalier.postgres.connect import Connection, connect
from espalier.postgres.migrate import migrate
from espalier.project import Calendar, Entity, FeatureView, Label, Project
from espalier.training.split import split_by_time

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
    with connection.cursor() as cursor:
        copy = sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(project.name, table))
        with cursor.copy(copy) as stream:
            for key, *values in rows:
                stream.write_row((key, day, *values, f"{known} 00:00Z", snapshot))


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with embedded.temporary() as server:
        with connect(server.dsn()) as connection:
            migrate(connection)
            store(connection, SHOP, 800)
            store(connection, TINY, 40)
        yield server.dsn()


def stored(dsn: str, run_id: str) -> list[tuple[object, ...]]:
    with connect(dsn) as connection:
        return connection.execute(
            "SELECT kind, column_name, method, score, threshold, drifted FROM espalier.drift "
            "WHERE run_id = %s ORDER BY id",
            [run_id],
        ).fetchall()


def test_no_drift(dsn: str, tmp_path: Path) -> None:
    found = check_drift(SHOP, as_of=date(1997, 4, 30), dsn=dsn, reports_dir=tmp_path)
    assert not found.verdict
    assert (found.share, found.drifted) == (0, ())
    assert list(found.columns) == list(FEATURES)
    assert found.target is not None
    assert not found.target.drifted


def test_half_of_the_features_drift(dsn: str, tmp_path: Path) -> None:
    found = check_drift(SHOP, as_of=date(1997, 5, 31), dsn=dsn, reports_dir=tmp_path)
    assert found.verdict
    assert found.share == DRIFT_SHARE
    assert found.drifted == ("amount", "visits")


def test_the_target_alone_drifts(dsn: str, tmp_path: Path) -> None:
    found = check_drift(SHOP, as_of=date(1997, 6, 30), dsn=dsn, reports_dir=tmp_path)
    assert found.drifted == ("amount",)
    assert found.target is not None
    assert found.target.drifted
    assert found.verdict


def test_a_column_loses_its_values(dsn: str, tmp_path: Path) -> None:
    found = check_drift(SHOP, as_of=date(1997, 7, 31), dsn=dsn, reports_dir=tmp_path)
    assert found.drifted == ("gap",)
    assert found.columns["gap"].method == "null share"
    assert found.columns["gap"].score == pytest.approx(0.6, abs=0.05)


def test_the_first_labels_are_the_reference(dsn: str, tmp_path: Path) -> None:
    found = check_drift(SHOP, as_of=date(1997, 3, 2), dsn=dsn, reports_dir=tmp_path)
    assert found.target is None
    assert not found.verdict
    report = json.loads(found.json.read_text())["espalier"]
    assert report["reference"] == "800 labelled rows of 1997-01-31, as known at 1997-03-02"


def test_the_reference_is_what_the_model_was_trained_on(dsn: str, tmp_path: Path) -> None:
    found = check_drift(
        SHOP,
        as_of=date(1997, 7, 31),
        dsn=dsn,
        reports_dir=tmp_path,
        model_version="3",
        trained_as_of=date(1997, 4, 30),
    )
    report = json.loads(found.json.read_text())["espalier"]
    assert report["model_version"] == "3"
    assert report["reference"] == (
        "1600 labelled rows of 1997-01-31 to 1997-02-28, as known at 1997-04-30"
    )
    assert "at 1997-05-31 (800 rows)" in report["target_note"]


def test_what_training_leaves_out_is_no_reference(dsn: str, tmp_path: Path) -> None:
    label = replace(SHOP.label, horizon=timedelta(days=45))
    project = replace(SHOP, label=label)
    found = check_drift(project, as_of=date(1997, 4, 30), dsn=dsn, reports_dir=tmp_path)
    report = json.loads(found.json.read_text())["espalier"]
    assert report["reference"] == "800 labelled rows of 1997-01-31, as known at 1997-04-30"
    with connect(dsn) as connection:
        frame = training_set(connection, project, as_of=date(1997, 4, 30))
    assert split_by_time(frame, label).train_times == (date(1997, 1, 31),)


def test_rows_and_reports(dsn: str, tmp_path: Path) -> None:
    day = date(1997, 6, 30)
    first = check_drift(SHOP, as_of=day, dsn=dsn, reports_dir=tmp_path, model_version="7")
    rows = stored(dsn, first.run_id)
    expected = [("feature", name, c) for name, c in first.columns.items()]
    assert first.target is not None
    expected.append(("target", "closed", first.target))
    assert rows[:-1] == [
        (kind, name, c.method, c.score, c.threshold, c.drifted) for kind, name, c in expected
    ]
    assert rows[-1] == ("overall", None, "share of drifted features", 0.25, 0.5, True)

    folder = tmp_path / "evidently" / "shop"
    assert (first.html, first.json) == (folder / "1997-06-30.html", folder / "1997-06-30.json")
    values = json.loads(first.json.read_text(), parse_constant=pytest.fail)
    assert [metric["config"]["column"] for metric in values["metrics"]] == [
        *FEATURES,
        "target label",
    ]
    assert values["espalier"]["verdict"] is True
    assert values["espalier"]["columns"]["amount"]["score"] == first.columns["amount"].score
    page = first.html.read_text()
    headline = "Drift: 1 of 4 features drifted (the limit is a share of 0.5), the label drifted"
    assert f"<h1>shop, 1997-06-30: {headline}</h1>" in page
    assert page.rstrip().endswith("</html>")

    again = check_drift(SHOP, as_of=day, dsn=dsn, reports_dir=tmp_path)
    assert again.run_id != first.run_id
    assert stored(dsn, first.run_id) == rows
    assert sorted(path.name for path in folder.iterdir()) == ["1997-06-30.html", "1997-06-30.json"]
    with connect(dsn) as connection:
        latest = connection.execute(
            "SELECT DISTINCT run_id::text, model_version FROM espalier.drift_latest "
            "WHERE project = 'shop' AND as_of = %s",
            [day],
        ).fetchall()
    assert latest == [(again.run_id, None)]


def test_no_row_without_its_report(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "evidently").write_text("not a folder")
    count = "SELECT count(*) FROM espalier.drift"
    with connect(dsn) as connection:
        before = connection.execute(count).fetchone()
        connection.rollback()
        with pytest.raises(ConfigurationError, match="set ESPALIER_REPORTS_DIR"):
            check_drift(SHOP, as_of=date(1997, 4, 30), dsn=dsn, reports_dir=tmp_path)
        assert connection.execute(count).fetchone() == before


@pytest.mark.parametrize(
    ("project", "day", "message"),
    [
        (SHOP, date(1997, 1, 15), "no features of shop are known at 1997-01-15"),
        (SHOP, date(1997, 2, 15), "no labelled rows of shop are known at 1997-02-15"),
        (TINY, date(1997, 4, 30), "80 reference rows are too few"),
    ],
)
def test_too_little_is_known(
    dsn: str, tmp_path: Path, project: Project, day: date, message: str
) -> None:
    with pytest.raises(BadData, match=message):
        check_drift(project, as_of=day, dsn=dsn, reports_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_database(tmp_path: Path) -> None:
    dsn = f"postgresql://nobody@/none?host={tmp_path}"
    with pytest.raises(DependencyUnreachable):
        check_drift(SHOP, as_of=date(1997, 4, 30), dsn=dsn, reports_dir=tmp_path)
