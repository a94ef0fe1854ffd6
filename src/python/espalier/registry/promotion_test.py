from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from espalier.errors import CheckRefused, DependencyUnreachable, EspalierError, UsageError
from espalier.postgres.connect import connect
from espalier.registry import ledger
from espalier.registry.download import current_version
from espalier.registry.promotion import champion, promote
from espalier.registry.rest import MlflowRest
from espalier.testing_web import NOBODY

BECAUSE: dict[str, Any] = {"who": "tester", "why": "a test", "evidence": {"gate": {"low": 0.1}}}


def test_nothing_is_champion_at_first(database, registry, project) -> None:
    assert champion(database, registry.uri, project) is None
    assert ledger.history(database, project) == []


def test_promotions_are_recorded_and_the_alias_follows(
    database, registry, register, project
) -> None:
    register(1.0), register(2.0)
    promote(database, registry.uri, project, "1", expected=None, **BECAUSE)
    assert champion(database, registry.uri, project) == "1"
    promote(database, registry.uri, project, "2", expected="1", **BECAUSE)
    assert current_version(registry.uri, project) == "2"
    promote(database, registry.uri, project, "1", expected="2", who="x", why="back", evidence={})
    assert champion(database, registry.uri, project) == "1"

    entries = ledger.history(database, project)
    assert [(e.from_version, e.to_version) for e in entries] == [
        (None, "1"),
        ("1", "2"),
        ("2", "1"),
    ]
    assert entries[0].who == "tester"
    assert entries[0].evidence["gate"] == {"low": 0.1}
    assert len(entries[0].evidence["manifest_digest"]) == 64
    assert entries[2].why == "back"
    assert abs(entries[2].at - datetime.now(UTC)) < timedelta(minutes=5)


def test_what_was_compared_with_another_champion_is_refused(
    database, registry, register, project
) -> None:
    register(1.0), register(2.0), register(3.0)
    promote(database, registry.uri, project, "1", expected=None, **BECAUSE)
    promote(database, registry.uri, project, "2", expected="1", **BECAUSE)
    for expected in ("1", None):
        with pytest.raises(CheckRefused, match="is version 2, not"):
            promote(database, registry.uri, project, "3", expected=expected, **BECAUSE)
    with pytest.raises(UsageError, match="champion already"):
        promote(database, registry.uri, project, "2", expected="2", **BECAUSE)
    assert champion(database, registry.uri, project) == "2"
    assert len(ledger.history(database, project)) == 2


def test_a_version_that_is_not_registered_is_refused(database, registry, register, project) -> None:
    register()
    with pytest.raises(UsageError, match="no version 9"):
        promote(database, registry.uri, project, "9", expected=None, **BECAUSE)
    assert ledger.history(database, project) == []


def test_a_promotion_that_was_cut_off_after_the_ledger_is_completed(
    database, registry, register, project
) -> None:
    register(1.0), register(2.0)
    ledger.append(database, project, after=None, to_version="1", **BECAUSE)
    database.commit()
    assert current_version(registry.uri, project) is None
    assert champion(database, registry.uri, project) == "1"
    assert current_version(registry.uri, project) == "1"

    last = ledger.last(database, project)
    ledger.append(database, project, after=last, to_version="2", **BECAUSE)
    database.commit()
    promote(database, registry.uri, project, "1", expected="2", **BECAUSE)
    assert current_version(registry.uri, project) == "1"
    assert len(ledger.history(database, project)) == 3


def test_an_alias_moved_by_hand_is_reported_and_left_alone(
    database, registry, register, project
) -> None:
    register(1.0), register(2.0), register(3.0)
    with MlflowRest(registry.uri) as mlflow:
        mlflow.set_alias(project, "3")
        with pytest.raises(CheckRefused, match="the ledger has no promotion"):
            champion(database, registry.uri, project)
        ledger.append(database, project, after=None, to_version="1", **BECAUSE)
        database.commit()
        for call in (
            lambda: champion(database, registry.uri, project),
            lambda: promote(database, registry.uri, project, "2", expected="1", **BECAUSE),
        ):
            with pytest.raises(CheckRefused, match=r"version 3.*made version 1 champion"):
                call()
        assert mlflow.alias(project) == "3"
        mlflow.set_alias(project, "1")
    assert champion(database, registry.uri, project) == "1"


def test_a_ledger_of_another_registry_is_reported(database, registry, project) -> None:
    ledger.append(database, project, after=None, to_version="4", **BECAUSE)
    database.commit()
    with pytest.raises(CheckRefused, match="MLflow has no such version"):
        champion(database, registry.uri, project)


def test_of_two_promotions_at_once_one_is_refused(postgres, registry, register, project) -> None:
    register(1.0), register(2.0)
    outcomes: list[str] = []
    start = threading.Barrier(2)

    def run(version: str) -> None:
        with connect(postgres.dsn()) as connection:
            start.wait()
            try:
                promote(connection, registry.uri, project, version, expected=None, **BECAUSE)
                outcomes.append(version)
            except CheckRefused:
                outcomes.append("refused")

    threads = [threading.Thread(target=run, args=[version]) for version in ("1", "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = set(outcomes) - {"refused"}
    assert "refused" in outcomes
    with connect(postgres.dsn()) as connection:
        assert champion(connection, registry.uri, project) == winner
        assert len(ledger.history(connection, project)) == 1


def test_the_ledger_has_no_branches(database, project) -> None:
    first = ledger.append(database, project, after=None, to_version="1", **BECAUSE)
    ledger.append(database, project, after=first, to_version="2", **BECAUSE)
    for after in (None, first):
        with pytest.raises(CheckRefused, match="in the meantime"):
            ledger.append(database, project, after=after, to_version="3", **BECAUSE)
    assert [e.to_version for e in ledger.history(database, project)] == ["1", "2"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE espalier.ledger SET who = 'nobody'",
        "DELETE FROM espalier.ledger",
        "TRUNCATE espalier.ledger",
    ],
)
def test_the_ledger_only_grows(database, project, statement) -> None:
    ledger.append(database, project, after=None, to_version="1", **BECAUSE)
    database.commit()
    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        database.execute(statement)
    database.rollback()
    assert ledger.last(database, project) is not None


@pytest.mark.parametrize("missing", ["who", "why"])
def test_a_promotion_without_who_or_why_is_refused(database, project, missing) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        ledger.append(database, project, after=None, to_version="1", **(BECAUSE | {missing: ""}))


def test_mlflow_being_down_leaves_the_ledger_alone_and_frees_the_lock(
    database, postgres, project
) -> None:
    nowhere = f"http://{NOBODY}"
    with pytest.raises(EspalierError) as refused:
        promote(database, nowhere, project, "1", expected=None, **BECAUSE)
    assert isinstance(refused.value, DependencyUnreachable)
    assert ledger.history(database, project) == []
    with connect(postgres.dsn()) as other:
        other.execute("SET lock_timeout = '5s'")
        with ledger.exclusive(other, project):
            pass
