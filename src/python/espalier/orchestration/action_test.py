from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from uuid import uuid4

import pytest

from espalier.errors import ConfigurationError
from espalier.monitoring.testing import SHOP, store
from espalier.orchestration import action
from espalier.policies import Retraining
from espalier.postgres import embedded
from espalier.postgres.connect import Connection, connect
from espalier.registry.download import Champion
from espalier.registry.manifest import ModelManifest

JULY, JUNE = date(1997, 7, 31), date(1997, 6, 30)
PROJECT = replace(
    SHOP,
    retraining=Retraining(performance_margin=0.02, cooldown=timedelta(days=28), per_month=2),
)


def champion(version: str = "1", validated: str = "1997-04-30") -> Champion:
    manifest = ModelManifest(
        project="shop",
        join_key="shop_id",
        view="monthly",
        features=(),
        feature_types=(),
        ttl_seconds=0,
        threshold=0.5,
        file="",
        digest="",
        metrics={"roc_auc": 0.8},
        provenance={"validation_time": validated},
    )
    return Champion(version, manifest)


@pytest.fixture
def connection(server: embedded.Server, database: str):
    with connect(server.dsn(database)) as made:
        store(made, SHOP, 30)
        snapshot(made, JUNE)
        yield made


def snapshot(connection: Connection, as_of: date, revision: int = 1) -> None:
    connection.execute(
        "INSERT INTO espalier.snapshots (project, as_of, revision, digest, files, row_counts, "
        "validation, created_by) VALUES ('shop', %s, %s, '', '{}', '{}', '{}', 'test')",
        [as_of, revision],
    )


def drifted(connection: Connection, as_of: date, *, verdict: bool, version: str = "1") -> None:
    connection.execute(
        "INSERT INTO espalier.drift (run_id, project, as_of, model_version, kind, method, score, "
        "threshold, drifted, verdict) VALUES (%s, 'shop', %s, %s, 'overall', 'share', 1, 1, true, %s)",
        [uuid4(), as_of, version, verdict],
    )


def served(
    connection: Connection,
    value: float,
    high: float,
    *,
    label_time: date,
    metric: str = "roc_auc",
    low: float = 0,
) -> None:
    connection.execute(
        "INSERT INTO espalier.live_performance (run_id, project, label_time, model_version, role, "
        "metric, value, low, high, rows, positives, unserved) "
        "VALUES (%s, 'shop', %s, '1', 'champion', %s, %s, %s, %s, 100, 50, 0)",
        [uuid4(), label_time, metric, value, low, high],
    )


def decide(connection: Connection, as_of: date = JULY, **of: str) -> tuple[str, str]:
    found = action.decide(connection, PROJECT, as_of=as_of, champion=champion(**of))
    return found.decision, found.why


def shortfall(connection: Connection) -> float | None:
    row = connection.execute("SELECT live_shortfall FROM espalier.actions").fetchone()
    assert row is not None
    return None if row[0] is None else float(row[0])


def test_without_a_model_one_is_trained(connection: Connection) -> None:
    found = action.decide(connection, PROJECT, as_of=JULY, champion=None)
    assert (found.decision, found.why) == ("train", "there is no model yet")
    assert not found.finished


def test_nothing_asks_for_it(connection: Connection) -> None:
    # One odd window is not the verdict, and the interval reaches up to what was promised.
    drifted(connection, JULY, verdict=False)
    served(connection, 0.70, 0.785, label_time=JUNE)
    assert decide(connection)[0] == "none"


def test_a_drift_verdict_asks_for_it_and_the_newest_counts(connection: Connection) -> None:
    drifted(connection, JULY, verdict=False)
    drifted(connection, JULY, verdict=True)
    drifted(connection, JULY, verdict=False, version="2")
    assert decide(connection) == ("train", "drift")


def test_lost_performance_asks_for_it(connection: Connection) -> None:
    served(connection, 0.70, 0.77, label_time=JUNE)
    assert decide(connection) == (
        "train",
        "live roc_auc 0.700 (at most 0.770) where validation promised 0.800",
    )
    assert shortfall(connection) == pytest.approx(0.03)


def test_at_the_margin_itself_performance_is_not_lost(connection: Connection) -> None:
    # 0.8 less 0.78 is a little more than 0.02 in binary.
    served(connection, 0.70, 0.78, label_time=JUNE)
    assert decide(connection)[0] == "none"
    assert shortfall(connection) == 0


def test_how_much_performance_was_lost_is_kept_for_the_exporter(connection: Connection) -> None:
    decide(connection)
    assert shortfall(connection) is None
    served(connection, 0.79, 0.81, label_time=JUNE)
    connection.execute("DELETE FROM espalier.actions")
    decide(connection)
    assert shortfall(connection) == 0


@pytest.mark.parametrize(
    ("low", "decision", "why"),
    [
        (0.39, "none", "no drift verdict, and live performance is not lost"),
        (0.45, "train", "live log_loss 0.500 (at least 0.450) where validation promised 0.380"),
    ],
)
def test_of_a_metric_that_falls_as_models_improve_the_lower_end_counts(
    connection: Connection, low: float, decision: str, why: str
) -> None:
    project = replace(PROJECT, gate=replace(PROJECT.gate, metric="log_loss"))
    served(connection, 0.5, 0.6, label_time=JUNE, metric="log_loss", low=low)
    model = champion()
    manifest = replace(model.manifest, metrics={"roc_auc": 0.8, "log_loss": 0.38})
    found = action.decide(
        connection, project, as_of=JULY, champion=replace(model, manifest=manifest)
    )
    assert (found.decision, found.why) == (decision, why)
    assert (found.signals.live_low, found.signals.live_high) == (low, 0.6)
    assert shortfall(connection) == pytest.approx(0.07 if decision == "train" else 0)


def test_labels_that_were_not_known_then_say_nothing(connection: Connection) -> None:
    served(connection, 0.70, 0.77, label_time=JUNE + timedelta(days=2))
    assert decide(connection)[0] == "none"


def test_a_decision_is_made_once_for_each_snapshot(connection: Connection) -> None:
    first = action.decide(connection, PROJECT, as_of=JULY, champion=champion())
    drifted(connection, JULY, verdict=True)
    assert action.decide(connection, PROJECT, as_of=JULY, champion=champion()) == first
    assert first.finished
    snapshot(connection, JULY, revision=2)
    assert action.stored(connection, PROJECT, as_of=JULY) is None
    assert decide(connection) == ("train", "drift")


def test_trainings_are_a_cool_down_apart(connection: Connection) -> None:
    trained(connection, JULY - timedelta(days=20))
    drifted(connection, JULY, verdict=True)
    # 07-11 and this one are two of July, which is allowed; they are too close.
    assert decide(connection) == (
        "held",
        "drift, but the last one was on 1997-07-11, less than 28 days ago",
    )


def test_a_month_has_a_limit(connection: Connection) -> None:
    for day in (1, 2):
        trained(connection, date(1997, 7, day))
    drifted(connection, JULY, verdict=True)
    assert decide(connection)[1] == "drift, but 2 of 2 trainings of this month are used"


def test_what_could_not_be_trained_counts_for_no_limit(connection: Connection) -> None:
    trained(connection, JULY - timedelta(days=20), outcome="impossible")
    drifted(connection, JULY, verdict=True)
    assert decide(connection) == ("train", "drift")


def test_without_newer_labels_nothing_would_be_learnt(connection: Connection) -> None:
    drifted(connection, JULY, verdict=True)
    decision, why = decide(connection, validated="1997-05-31")
    assert decision == "held"
    assert (
        why == "drift, but no labels are newer than those of 1997-05-31, which it was validated on"
    )


def test_an_end_is_stored_once(connection: Connection) -> None:
    begun = action.decide(connection, PROJECT, as_of=JULY, champion=None)
    action.finish(connection, begun, outcome="refused", why="worse", version="3")
    action.finish(connection, begun, outcome="promoted", why="better", version="4")
    found = action.stored(connection, PROJECT, as_of=JULY)
    assert found is not None
    assert (found.outcome, found.outcome_why, found.model_version) == ("refused", "worse", "3")
    assert found.finished


def test_limits_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="cool-down below 0"):
        Retraining(cooldown=timedelta(days=-1))
    with pytest.raises(ConfigurationError):
        Retraining(per_month=0)


def trained(connection: Connection, as_of: date, *, outcome: str = "promoted") -> None:
    snapshot(connection, as_of)
    begun = action.decide(connection, PROJECT, as_of=as_of, champion=None)
    action.finish(connection, begun, outcome=outcome, why="", version="1")
