from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from espalier.errors import BadData, CheckRefused, DependencyUnreachable, ModelNotReady, UsageError
from espalier.postgres import embedded
from espalier.postgres.connect import Connection, connect
from espalier.processes import python_environment
from espalier.registry import ledger
from espalier.registry.manifest import MANIFEST, ONNX
from espalier.registry.mlflow_registry import Registered, log_and_register
from espalier.registry.promotion import champion, promote, repair, rollback
from espalier.registry.rest import MlflowRest
from espalier.testing_web import NOBODY

BECAUSE: dict[str, Any] = {"who": "tester", "why": "a test"}


@dataclass(frozen=True)
class Scene:
    """The services and the test's project."""

    postgres: embedded.Server
    database: Connection
    uri: str
    project: str
    register: Callable[..., Registered]


@pytest.fixture
def scene(postgres, database, registry, project, register) -> Scene:
    return Scene(postgres, database, registry.uri, project, register)


@pytest.fixture
def history(database, registry, register, project):
    """Registers versions 1 to n and promotes each."""

    def make(count: int) -> None:
        before = None
        for number in range(1, count + 1):
            version = register(float(number)).version
            promote(
                database,
                registry.uri,
                project,
                version,
                expected=before,
                evidence={},
                **BECAUSE,
            )
            before = version

    return make


@pytest.fixture
def aliases(registry, project):
    def read() -> tuple[str | None, str | None]:
        with MlflowRest(registry.uri) as mlflow:
            found = mlflow.aliases(project)
        return found.get("champion"), found.get("previous")

    return read


@pytest.fixture
def back(database, registry, project):
    def run(expected: str, **options: Any) -> ledger.Entry:
        return rollback(database, registry.uri, project, expected=expected, **BECAUSE, **options)

    return run


def test_previous_is_where_a_rollback_goes(history, aliases, back, database, project) -> None:
    history(1)
    assert aliases() == ("1", None)
    with pytest.raises(CheckRefused, match="no champion before it"):
        back("1")
    assert [e.kind for e in ledger.history(database, project)] == ["promote"]


def test_each_rollback_goes_one_further_back(history, aliases, back, database, project) -> None:
    history(3)
    assert aliases() == ("3", "2")
    entry = back("3")
    assert (entry.kind, entry.from_version, entry.to_version) == ("rollback", "3", "2")
    assert (entry.who, entry.why) == ("tester", "a test")
    assert aliases() == ("2", "1")
    back("2")
    assert aliases() == ("1", None)
    with pytest.raises(CheckRefused, match="no champion before it"):
        back("1")
    assert [(e.kind, e.to_version) for e in ledger.history(database, project)] == [
        ("promote", "1"),
        ("promote", "2"),
        ("promote", "3"),
        ("rollback", "2"),
        ("rollback", "1"),
    ]


def test_a_promotion_after_a_rollback_does_not_lead_back_to_what_was_rolled_back(
    scene, history, aliases, back
) -> None:
    history(3)
    back("3")
    scene.register(4.0)
    promote(scene.database, scene.uri, scene.project, "4", expected="2", evidence={}, **BECAUSE)
    assert aliases() == ("4", "2")
    back("4")
    assert aliases() == ("2", "1")


def test_a_rollback_may_name_an_earlier_champion(history, aliases, back) -> None:
    history(3)
    for wrong in ("3", "9"):
        with pytest.raises(UsageError, match=rf"version {wrong} .* is no champion before .*1, 2"):
            back("3", to=wrong)
    back("3", to="1")
    assert aliases() == ("1", None)


def test_a_version_that_was_champion_twice_is_gone_back_from_once(
    scene, history, aliases, back
) -> None:
    history(2)
    promote(scene.database, scene.uri, scene.project, "1", expected="2", evidence={}, **BECAUSE)
    assert aliases() == ("1", "2")
    back("1")
    assert aliases() == ("2", "1")
    back("2")
    assert aliases() == ("1", None)


def test_nothing_promoted_is_nothing_to_go_back_from(back) -> None:
    with pytest.raises(CheckRefused, match="is none, not version 1"):
        back("1")


def newest_two(registry, name: str):
    return sorted(registry.stored(name), key=lambda path: path.stat().st_mtime_ns)[-2:]


@pytest.mark.parametrize("name", [ONNX, MANIFEST])
def test_it_never_goes_back_to_a_version_whose_file_is_gone_or_was_changed(
    history, aliases, back, registry, name
) -> None:
    history(2)
    stored, _ = newest_two(registry, name)
    content = stored.read_bytes()
    stored.write_bytes(content + b" ")
    with pytest.raises(BadData, match=rf"{name}.*has sha256"):
        back("2")
    stored.unlink()
    with pytest.raises(ModelNotReady, match=name):
        back("2")
    assert aliases() == ("2", "1")
    stored.write_bytes(content)
    back("2")
    assert aliases() == ("1", None)


def test_it_never_goes_back_to_what_was_not_promoted(
    history, aliases, back, registry, project
) -> None:
    history(2)
    stored, _ = newest_two(registry, MANIFEST)
    stored.write_text(stored.read_text().replace('"threshold": 0.5', '"threshold": 0.4'))
    # Even by somebody who can write to MLflow's database.
    MlflowClient(registry.uri, registry.uri).delete_model_version_tag(project, "1", "files")
    with pytest.raises(CheckRefused, match="is not the one that was promoted"):
        back("2")
    assert aliases() == ("2", "1")


def test_a_model_that_does_not_score_as_in_training_is_never_promoted(
    database, registry, candidate, project
) -> None:
    made = candidate()
    wrong = replace(made, manifest=replace(made.manifest, golden_scores=(0.1, 0.2)))
    version = log_and_register(registry.uri, wrong).version
    with pytest.raises(BadData, match="golden row"):
        promote(database, registry.uri, project, version, expected=None, evidence={}, **BECAUSE)
    assert ledger.history(database, project) == []


def test_an_alias_moved_by_hand_does_not_stop_a_rollback(
    history, aliases, back, registry, project
) -> None:
    history(3)
    with MlflowRest(registry.uri) as mlflow:
        mlflow.set_alias(project, "1")
    back("3")
    assert aliases() == ("2", "1")


def test_repair_makes_the_aliases_say_what_the_ledger_says(scene, aliases) -> None:
    scene.register(9.0)
    with MlflowRest(scene.uri) as mlflow:
        mlflow.set_alias(scene.project, "1")
    assert repair(scene.database, scene.uri, scene.project) is None
    assert aliases() == (None, None)
    for version, before in (("1", None), ("2", "1")):
        if version == "2":
            scene.register(2.0)
        promote(
            scene.database,
            scene.uri,
            scene.project,
            version,
            expected=before,
            evidence={},
            **BECAUSE,
        )
    with MlflowRest(scene.uri) as mlflow:
        mlflow.delete_alias(scene.project, "champion")
        mlflow.set_alias(scene.project, "2", "previous")
    with pytest.raises(CheckRefused, match="--repair"):
        champion(scene.database, scene.uri, scene.project)
    assert repair(scene.database, scene.uri, scene.project) == "2"
    assert aliases() == ("2", "1")


def test_a_rollback_that_was_cut_off_after_the_ledger_is_completed(
    history, aliases, database, registry, project
) -> None:
    history(2)
    ledger.append(
        database,
        project,
        after=ledger.last(database, project),
        to_version="1",
        evidence={},
        kind="rollback",
        **BECAUSE,
    )
    database.commit()
    assert aliases() == ("2", "1")
    assert champion(database, registry.uri, project) == "1"
    assert aliases() == ("1", None)


def test_who_listens_is_told_of_each_change_once_it_is_true(
    history, back, postgres, registry, project
) -> None:
    with connect(postgres.dsn(), autocommit=True) as listener:
        listener.execute("LISTEN espalier_promotion")
        history(2)
        back("2")
        # Once by the ledger's commit, once when the alias has moved.
        told = [json.loads(n.payload) for n in listener.notifies(timeout=20, stop_after=6)]
    assert told == [{"project": project, "version": v} for v in ("1", "1", "2", "2", "1", "1")]


def test_a_promotion_that_did_not_happen_is_told_to_nobody(database, postgres, project) -> None:
    with connect(postgres.dsn(), autocommit=True) as listener:
        listener.execute("LISTEN espalier_promotion")
        # A transaction is open, so the entry is not committed by itself.
        assert ledger.last(database, project) is None
        ledger.append(database, project, after=None, to_version="1", evidence={}, **BECAUSE)
        database.rollback()
        listener.execute("NOTIFY espalier_promotion, 'end'")
        told = [n.payload for n in listener.notifies(timeout=20, stop_after=1)]
    assert told == ["end"]


def test_of_two_rollbacks_at_once_one_is_refused(scene, history, aliases) -> None:
    history(3)
    outcomes: list[str] = []
    start = threading.Barrier(2)

    def run() -> None:
        with connect(scene.postgres.dsn()) as connection:
            start.wait()
            try:
                rollback(connection, scene.uri, scene.project, expected="3", **BECAUSE)
                outcomes.append("done")
            except CheckRefused:
                outcomes.append("refused")

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["done", "refused"]
    assert aliases() == ("2", "1")
    assert [e.kind for e in ledger.history(scene.database, scene.project)] == [
        *["promote"] * 3,
        "rollback",
    ]


PROMOTE = """
import sys
from espalier.errors import CheckRefused
from espalier.postgres import embedded
from espalier.postgres.connect import Connection, connect
from espalier.registry.promotion import promote
dsn, uri, project, version = sys.argv[1:]
with connect(dsn) as connection:
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        promote(connection, uri, project, version, expected="1", who="p", why="race", evidence={})
    except CheckRefused as refused:
        print(refused)
        sys.exit(refused.exit_code)
"""


def test_of_promotions_by_several_processes_at_once_one_wins_and_the_others_are_told(
    scene, history, aliases
) -> None:
    history(1)
    versions = [scene.register(float(number)).version for number in (2, 3, 4)]
    racers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                PROMOTE,
                scene.postgres.dsn(),
                scene.uri,
                scene.project,
                version,
            ],
            env=python_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for version in versions
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=60)[0] for racer in racers]
    assert sorted(racer.returncode for racer in racers) == [0, 1, 1]
    (winner,) = [v for v, racer in zip(versions, racers, strict=True) if racer.returncode == 0]
    for text in filter(None, said):
        assert f"is version {winner}, not version 1" in text
    assert aliases() == (winner, "1")
    assert [e.to_version for e in ledger.history(scene.database, scene.project)] == ["1", winner]


def test_mlflow_being_down_leaves_the_ledger_alone(history, back, database, project) -> None:
    history(2)
    with pytest.raises(DependencyUnreachable):
        rollback(database, f"http://{NOBODY}", project, expected="2", **BECAUSE)
    assert len(ledger.history(database, project)) == 2
