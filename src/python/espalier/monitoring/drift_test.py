"""Drift checks on PostgreSQL with the real Evidently: each day of one history is a case."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from espalier.errors import BadData, ConfigurationError, DependencyUnreachable
from espalier.features import point_in_time
from espalier.features.point_in_time import training_set
from espalier.monitoring.drift import Drift, check_drift
from espalier.monitoring.testing import FEATURES, SHOP, TINY, store
from espalier.policies import ColumnMonitoring, Monitoring
from espalier.postgres import embedded
from espalier.postgres.connect import Connection, connect
from espalier.postgres.migrate import migrate
from espalier.project import Project
from espalier.training.split import split_by_time


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
    assert found.share == SHOP.monitoring.share
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
    headline = (
        "Drift: 1 of 4 features drifted (the limit is a share of 0.5), the label drifted; "
        "1 of the last 1 windows drifted (1 are needed)"
    )
    assert f"<h1>shop, 1997-06-30: {headline}</h1>" in page
    assert page.rstrip().endswith("</html>")

    again = check_drift(SHOP, as_of=day, dsn=dsn, reports_dir=tmp_path)
    assert again.run_id != first.run_id
    assert stored(dsn, first.run_id) == rows
    assert sorted(path.name for path in folder.iterdir()) == [
        *("1997-06-30-quality.html", "1997-06-30-quality.json"),
        *("1997-06-30.html", "1997-06-30.json"),
    ]
    with connect(dsn) as connection:
        latest = connection.execute(
            "SELECT DISTINCT run_id::text, model_version FROM espalier.drift_latest "
            "WHERE project = 'shop' AND as_of = %s",
            [day],
        ).fetchall()
    assert latest == [(again.run_id, None)]


def test_k_of_n_windows(dsn: str, tmp_path: Path) -> None:
    project = replace(SHOP, monitoring=Monitoring(windows_k=2, windows_n=3))

    def check(day: date, version: str = "9") -> tuple[bool, bool, int]:
        found = check_drift(
            project,
            as_of=day,
            dsn=dsn,
            reports_dir=tmp_path,
            model_version=version,
            trained_as_of=date(1997, 3, 31),
        )
        return found.window, found.verdict, len(found.windows)

    assert check(date(1997, 4, 30)) == (False, False, 1)
    # One odd month is not enough; the same month again is still one.
    assert check(date(1997, 5, 31)) == (True, False, 2)
    assert check(date(1997, 5, 31)) == (True, False, 2)
    assert check(date(1997, 6, 30)) == (True, True, 3)
    # The newest is quiet, but two of the last three were not.
    assert check(date(1997, 7, 31))[1:] == (True, 3)
    # Another champion begins anew.
    assert check(date(1997, 6, 30), "10") == (True, False, 1)
    with connect(dsn) as connection:
        overall = connection.execute(
            "SELECT as_of, drifted, verdict, windows_drifted, windows_seen "
            "FROM espalier.drift_latest WHERE model_version = '9' AND kind = 'overall' "
            "ORDER BY as_of"
        ).fetchall()
    # Days that another version was checked on last are not there.
    assert overall == [
        (date(1997, 4, 30), False, False, 0, 1),
        (date(1997, 5, 31), True, False, 1, 2),
        (date(1997, 7, 31), True, True, 3, 3),
    ]


def test_a_trend_is_reported_and_not_counted(dsn: str, tmp_path: Path) -> None:
    monitoring = replace(
        SHOP.monitoring,
        columns=(
            ColumnMonitoring(name="amount", trend=True),
            ColumnMonitoring(name="visits", method="ks", threshold=0.9),
        ),
    )
    project = replace(SHOP, monitoring=monitoring)
    found = check_drift(project, as_of=date(1997, 5, 31), dsn=dsn, reports_dir=tmp_path)
    assert not found.verdict
    assert (found.share, found.drifted, found.trending) == (0, (), ("amount",))
    assert found.columns["amount"].drifted
    assert (found.columns["visits"].method, found.columns["visits"].threshold) == ("ks", 0.9)
    with connect(dsn) as connection:
        trends = connection.execute(
            "SELECT column_name FROM espalier.drift WHERE run_id = %s AND trend", [found.run_id]
        ).fetchall()
    assert trends == [("amount",)]


def test_the_training_rows_are_read_once_a_version(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[date] = []

    def counted(connection: Connection, project: Project, *, as_of: date) -> Any:
        read.append(as_of)
        return training_set(connection, project, as_of=as_of)

    monkeypatch.setattr(point_in_time, "training_set", counted)
    day, trained = date(1997, 6, 30), date(1997, 4, 30)

    def check(trained: date) -> Drift:
        return check_drift(
            SHOP,
            as_of=day,
            dsn=dsn,
            reports_dir=tmp_path,
            model_version="20",
            trained_as_of=trained,
        )

    first, second = check(trained), check(trained)
    assert read == [trained]
    assert (first.columns, first.target) == (second.columns, second.target)
    # The same number of another model, from a registry that began anew.
    check(date(1997, 3, 31))
    assert read == [trained, date(1997, 3, 31)]


def test_what_was_served_against_the_history(dsn: str, tmp_path: Path) -> None:
    """Of half of the shops, and with one feature shifted on its way."""
    day = date(1997, 4, 30)
    with connect(dsn) as connection:
        connection.execute(
            "INSERT INTO espalier.predictions (served_at, project, model_version, entity_id, "
            "score, prediction, feature_time, features) "
            "SELECT '1997-04-30 09:00Z', 'shop', '1', shop_id, 0.5, 1, '1997-04-30 00:00Z', "
            "ARRAY[amount, visits + 9, gap, constant] FROM shop.facts "
            "WHERE day = '1997-04-30' AND shop_id < 's0400'"
        )
    found = check_drift(SHOP, as_of=day, dsn=dsn, reports_dir=tmp_path)
    assert found.served is not None
    assert {name for name, column in found.served.items() if column.drifted} == {"visits"}
    assert not found.verdict, "the verdict is about training"
    values = json.loads((tmp_path / "evidently" / "shop" / "1997-04-30-served.json").read_text())
    assert values["espalier"]["reference"] == "800 entities as known at 1997-04-30"
    assert values["espalier"]["current"] == "400 entities as served of 1997-04-30"
    assert check_drift(SHOP, as_of=date(1997, 7, 31), dsn=dsn, reports_dir=tmp_path).served is None


def test_quality_counts_every_row(dsn: str, tmp_path: Path) -> None:
    facts = SHOP.tables[0]
    columns = tuple(
        replace(column, maximum=5) if column.name == "visits" else column
        for column in facts.columns
    )
    project = replace(SHOP, tables=(replace(facts, columns=columns), SHOP.tables[1]))
    found = check_drift(project, as_of=date(1997, 4, 30), dsn=dsn, reports_dir=tmp_path)
    with connect(dsn) as connection:
        counted = connection.execute(
            "SELECT count(*) FILTER (WHERE visits > 5), count(*) FILTER (WHERE gap IS NULL) "
            "FROM shop.facts WHERE day = '1997-04-30'"
        ).fetchone()
        rows = connection.execute(
            "SELECT column_name, rows, missing, out_of_range, failed FROM espalier.data_quality "
            "WHERE run_id = %s ORDER BY id",
            [found.run_id],
        ).fetchall()
    assert counted is not None
    assert counted[0] > 0
    assert rows == [
        ("amount", 800, 0, 0, False),
        ("visits", 800, 0, counted[0], True),
        ("gap", 800, counted[1], 0, False),
        ("constant", 800, 0, 0, False),
    ]
    assert found.failed_quality == ("visits",)


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
