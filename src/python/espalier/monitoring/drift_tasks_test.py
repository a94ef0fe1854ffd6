"""Drift of labels that are classes or numbers, and of data with one snapshot, on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from espalier.ingest import tables
from espalier.monitoring.drift import Drift, check_drift
from espalier.monitoring.testing import CLASSES, SALES, SIZES, declare, insert, snapshot, store
from espalier.policies import Validation
from espalier.postgres import embedded
from espalier.postgres.connect import Connection, connect
from espalier.postgres.migrate import migrate
from espalier.project import Project

APRIL, JUNE, JULY = date(1997, 4, 30), date(1997, 6, 30), date(1997, 7, 31)
ONCE = declare("once", horizon=timedelta(0), validation=Validation(by="entity"))
SHOPS = 900


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with embedded.temporary() as server:
        with connect(server.dsn()) as connection:
            migrate(connection)
            store(connection, SIZES, SHOPS)
            store(connection, SALES, SHOPS)
            tables.ensure(connection, ONCE)
            add_day(connection, JUNE, revision=1)
        yield server.dsn()


def add_day(connection: Connection, day: date, *, revision: int, more: float = 0) -> None:
    """Features and labels of one day, known with it."""
    number = snapshot(connection, ONCE, revision)
    facts = [(f"s{n:04}", n * 0.1 + more, n % 7, None, 1) for n in range(SHOPS)]
    labels = [(f"s{n:04}", n % 3 == 0) for n in range(SHOPS)]
    for table, rows in (("facts", facts), ("endings", labels)):
        insert(connection, ONCE, table, day=day, known=day, snapshot=number, rows=rows)


def check(
    dsn: str, folder: Path, project: Project, as_of: date, *, trained: date, version: str = "1"
) -> Drift:
    return check_drift(
        project,
        as_of=as_of,
        dsn=dsn,
        reports_dir=folder,
        model_version=version,
        trained_as_of=trained,
    )


def note(found: Drift) -> str:
    told: str = json.loads(found.json.read_text())["espalier"]["target_note"]
    return told


@pytest.mark.parametrize(
    ("project", "method", "said"),
    [
        (SIZES, "jensenshannon", "shares of classes "),
        (SALES, "wasserstein", "median label "),
    ],
    ids=["classes", "numbers"],
)
def test_the_target_drifts(
    dsn: str, tmp_path: Path, project: Project, method: str, said: str
) -> None:
    still = check(dsn, tmp_path, project, APRIL, trained=APRIL)
    assert still.target is not None
    assert (still.target.method, still.target.drifted) == (method, False)
    assert note(still).startswith(said)
    first = check(dsn, tmp_path, project, JUNE, trained=APRIL)
    assert first.target is not None
    assert first.target.drifted
    assert first.window
    # The reference was stored with its labels, and is read again.
    again = check(dsn, tmp_path, project, JUNE, trained=APRIL)
    assert again.target == first.target
    with connect(dsn) as connection:
        stored = connection.execute(
            "SELECT positives, label_counts, cardinality(label_quantiles) "
            "FROM espalier.drift_references WHERE project = %s",
            [project.name],
        ).fetchone()
    assert stored is not None
    positives, counts, points = stored
    assert positives is None
    if project is SIZES:
        assert set(counts) == set(CLASSES)
        assert sum(counts.values()) == 2 * SHOPS
        assert points is None
    else:
        assert (counts, points) == (None, 2 * SHOPS)


def test_a_class_that_was_never_declared_is_drift(dsn: str, tmp_path: Path) -> None:
    with connect(dsn) as connection:
        rows: list[tuple[object, ...]] = [(f"s{n:04}", "huge") for n in range(SHOPS)]
        insert(
            connection,
            SIZES,
            "endings",
            day=JUNE,
            known=JULY,
            snapshot=snapshot(connection, SIZES, 3),
            rows=rows,
        )
    found = check(dsn, tmp_path, SIZES, JULY, trained=APRIL, version="9")
    assert found.target is not None
    assert found.target.score > 0.8
    assert "huge 1.000 at 1997-06-30" in note(found)


def test_one_snapshot_has_nothing_to_compare(dsn: str, tmp_path: Path) -> None:
    found = check(dsn, tmp_path, ONCE, JUNE, trained=JUNE)
    assert found.nothing == (
        "the features of 1997-06-30 are those that the model was trained on; none are newer"
    )
    assert (found.verdict, found.window, found.windows, found.drifted) == (False, False, (), ())
    # The rows are looked at all the same.
    assert found.quality["amount"].rows == SHOPS
    assert f"once, 1997-06-30: Nothing to compare: {found.nothing}" in found.html.read_text()
    told = json.loads(found.json.read_text())["espalier"]
    assert told["nothing"] == found.nothing
    # A model of one quarter less of the entities.
    rows = int(told["reference"].split()[0])
    assert 0.65 * SHOPS < rows < 0.85 * SHOPS
    with connect(dsn) as connection:
        counted = connection.execute(
            "SELECT count(*) FROM espalier.drift WHERE project = 'once'"
        ).fetchone()
    assert counted == (0,)


def test_the_next_snapshot_is_compared(dsn: str, tmp_path: Path) -> None:
    with connect(dsn) as connection:
        add_day(connection, JULY, revision=2, more=1000)
    found = check(dsn, tmp_path, ONCE, JULY, trained=JUNE, version="2")
    assert found.nothing == ""
    assert found.columns["amount"].drifted
    assert found.target is not None
    assert not found.target.drifted
    # And the one before it still is not.
    assert check(dsn, tmp_path, ONCE, JUNE, trained=JUNE, version="2").nothing
