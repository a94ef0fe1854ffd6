"""The gate's reasons to refuse, each by a real fault: data, models and online store are real."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

from churn.project import PROJECT
from espalier.errors import ConfigurationError
from espalier.features import feast_store
from espalier.features.point_in_time import training_set
from espalier.ingest.run import ingest
from espalier.policies import Gate, Search
from espalier.postgres import embedded, migrate
from espalier.postgres.connect import connect
from espalier.project import Project
from espalier.training import candidate, gate
from espalier.training.build import Built, build
from espalier.training.gate import PASSED, REFUSED, SKIPPED, Check
from espalier.training.judging import judge
from espalier.training.online_parity import OnlineParity
from espalier.training.split import split_by_time

SEEDS = Path("data/seeds/churn")
AS_OF = date(1997, 9, 30)
ORIGIN = {"train_to": "1997-03-31"}


@dataclass(frozen=True)
class World:
    dsn: str
    reports: Path

    def ingest(self, project: Project, seeds: Path) -> None:
        for month in range(4):
            ingest(
                project,
                source=seeds / f"month_{month:03}",
                as_of=project.calendar.as_of(month),
                dsn=self.dsn,
                reports_dir=self.reports,
                who="tester",
            )

    def judge(self, project: Project) -> tuple[Built, dict[str, Check], bool]:
        """Train on what was known and judge it against the baseline."""
        with connect(self.dsn) as connection:
            split = split_by_time(training_set(connection, project, as_of=AS_OF), project.label)
            built = build(project, split)
            made = candidate.manifest(project, split, built, ORIGIN)
            judged = judge(
                project,
                split,
                built,
                made,
                connection=connection,
                opponent=built.baseline_scores,
                against="the baseline",
                as_of=AS_OF,
            )
        checks = {check.name: check for check in judged.verdict.checks}
        return built, checks, judged.verdict.accepted


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with embedded.temporary() as server:
        with connect(server.dsn()) as connection:
            migrate.migrate(connection)
        made = World(server.dsn(), tmp_path_factory.mktemp("reports"))
        made.ingest(PROJECT, SEEDS)
        yield made


def refusals(checks: dict[str, Check]) -> list[str]:
    return [name for name, check in checks.items() if check.verdict == REFUSED]


def test_a_sound_model_passes_and_says_what_could_not_be_checked(world: World) -> None:
    built, checks, accepted = world.judge(PROJECT)
    assert accepted
    assert refusals(checks) == []
    assert checks["online features"].verdict == SKIPPED
    assert "nothing is online yet" in checks["online features"].reason
    assert built.served.parity is not None
    # The whole validation set, and once more with NaN and infinities in it.
    assert built.served.parity.rows == 2 * 2357
    latency = checks["latency"].value
    assert latency is not None
    assert 0 < latency < PROJECT.gate.max_latency_ms


def test_a_model_that_is_worse_on_one_slice_alone(world: World) -> None:
    project = replace(
        PROJECT,
        estimator="espalier.training.testing:blind_to_one_time_buyers",
        search=Search(),
        gate=Gate(margin=0.5),
    )
    _, checks, accepted = world.judge(project)
    assert not accepted
    assert checks["comparison"].verdict == PASSED
    assert "slice one-time buyers" in refusals(checks)
    assert "slice regular buyers" not in refusals(checks)
    reason = checks["slice one-time buyers"].reason
    assert reason.startswith("roc_auc 0.5000 against 0.")
    assert "a collapse by the slice margin" in reason
    # Told in the table, but no reason to refuse when the gate does not name it.
    lenient = replace(project, gate=Gate(margin=0.5, slices=("regular buyers",)))
    assert world.judge(lenient)[2]


def test_onnx_that_scores_otherwise(world: World) -> None:
    project = replace(
        PROJECT, estimator="espalier.training.testing:calibrated_as_a_whole", search=Search()
    )
    built, checks, accepted = world.judge(project)
    assert not accepted
    assert refusals(checks) == ["ONNX parity"]
    assert built.served.file == "model.onnx"
    assert "have another score" in checks["ONNX parity"].reason
    assert "row 0: 0." in checks["ONNX parity"].reason


def test_a_model_that_is_too_slow(world: World) -> None:
    project = replace(
        PROJECT,
        estimator="espalier.training.testing:slow",
        search=Search(),
        gate=Gate(margin=0.5, max_latency_ms=1),
    )
    built, checks, accepted = world.judge(project)
    assert not accepted
    assert refusals(checks) == ["latency"]
    assert built.served.file == "model.skops"
    assert "by model.skops, over the budget of 1 ms" in checks["latency"].reason


def test_a_feature_that_knows_the_label(world: World, tmp_path: Path) -> None:
    """Dollars of the last 90 days, by a mistake those of the next 90: the label's own."""
    project = replace(PROJECT, name="leaking")
    labels = pd.concat(
        pd.read_csv(path, dtype=str) for path in sorted(SEEDS.glob("month_00[0-6]/labels.csv"))
    )
    churned = labels.set_index(["user_id", "label_date"])["label_value"] == "true"
    for month in range(4):
        source, target = SEEDS / f"month_{month:03}", tmp_path / f"month_{month:03}"
        target.mkdir()
        for name in ("users.csv", "labels.csv"):
            (target / name).write_bytes((source / name).read_bytes())
        features = pd.read_csv(source / "features.csv", dtype=str)
        keys = pd.MultiIndex.from_frame(features[["user_id", "feature_date"]])
        features["spend_90d"] = (~churned.reindex(keys, fill_value=True).to_numpy()) * 20.0
        features.to_csv(target / "features.csv", index=False)
    world.ingest(project, tmp_path)
    _, checks, accepted = world.judge(project)
    assert not accepted
    assert refusals(checks) == ["leakage"]
    assert "look at spend_90d" in checks["leakage"].reason
    # The better it looks, the better it passes what compares models alone.
    assert checks["comparison"].verdict == PASSED


def test_online_features_that_are_not_those_of_training(world: World) -> None:
    feast_store.apply(PROJECT, dsn=world.dsn)
    feast_store.materialize(PROJECT, dsn=world.dsn, end=datetime(1997, 9, 30, tzinfo=UTC))
    _, checks, accepted = world.judge(PROJECT)
    assert accepted
    assert checks["online features"].verdict == PASSED
    assert checks["online features"].reason.startswith("200 entities")

    everyone = replace(PROJECT, gate=replace(PROJECT.gate, online_sample=10_000))
    with connect(world.dsn) as connection:
        changed = connection.execute(
            "UPDATE online.churn_customer_monthly SET spend_90d = spend_90d + 0.01 WHERE user_id = "
            "(SELECT max(user_id) FROM online.churn_customer_monthly) RETURNING user_id"
        ).fetchone()
        assert changed is not None
        (user,) = changed
        connection.commit()
        _, checks, accepted = world.judge(everyone)
        assert not accepted
        assert refusals(checks) == ["online features"]
        reason = checks["online features"].reason
        assert reason.startswith(f"1 of 2357 entities differ: spend_90d of user_id {user} is ")

        connection.execute("DELETE FROM online.churn_customer_monthly WHERE user_id = %s", [user])
        connection.commit()
        reason = world.judge(everyone)[1]["online features"].reason
        assert reason == (
            f"1 of 2357 entities differ: user_id {user} is in the history and not online"
        )

        # Another month's features cannot be compared; that is no fault of the model.
        connection.execute(
            "UPDATE online.churn_customer_monthly SET event_timestamp = '1997-08-31Z'"
        )
        connection.commit()
        check = world.judge(everyone)[1]["online features"]
        assert check.verdict == SKIPPED
        assert "holds features of 1997-08-31, not of 1997-09-30" in check.reason

        connection.execute(
            "ALTER TABLE online.churn_customer_monthly ALTER orders_total TYPE double precision"
        )
        connection.commit()
    check = world.judge(everyone)[1]["schema"]
    assert check.verdict == REFUSED
    assert "orders_total is bigint in the manifest and double precision online" in check.reason


def test_an_estimator_that_lacks_a_setting_is_named(world: World) -> None:
    project = replace(PROJECT, estimator="churn.estimator:recency_only")
    with pytest.raises(ConfigurationError, match="recency_only cannot be built"):
        world.judge(project)


def test_the_manifest_of_another_view_does_not_fit(world: World) -> None:
    with connect(world.dsn) as connection:
        split = split_by_time(training_set(connection, PROJECT, as_of=AS_OF), PROJECT.label)
    built = build(replace(PROJECT, search=Search()), split)
    made = candidate.manifest(PROJECT, split, built, ORIGIN)
    swapped = replace(made, features=(made.features[1], made.features[0], *made.features[2:]))
    check = gate.server_schema(PROJECT, swapped, built.served, OnlineParity())
    assert check.verdict == REFUSED
    assert "not those of view customer_monthly in their order" in check.reason
