"""From CSV files to a champion: PostgreSQL, an MLflow server and the product are all real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from churn.project import PROJECT
from espalier.errors import BadData, CheckRefused, DependencyUnreachable
from espalier.features.point_in_time import features_at, training_set
from espalier.ingest.run import ingest
from espalier.policies import Gate, Search
from espalier.postgres.connect import connect
from espalier.registry import ledger, promotion, versions
from espalier.registry.download import FetchedModel, current_version, fetch_version
from espalier.registry.rest import MlflowRest
from espalier.registry.testing import database_and_mlflow
from espalier.testing_web import NOBODY
from espalier.training import evaluate, judging, onnx_export, served, skops_file
from espalier.training.fitting import matrix
from espalier.training.program import Program
from espalier.training.split import split_by_time
from espalier.training.train import train
from espalier.training.trained import Trained

SEEDS = Path("data/seeds/churn")
FIRST, SECOND = date(1997, 9, 30), date(1997, 10, 31)


@dataclass(frozen=True)
class World:
    """The running services."""

    dsn: str
    tracking_uri: str
    artifacts: Path

    def train(self, as_of: date, project=PROJECT, asked_by: str = "") -> Trained:
        return train(
            project,
            as_of=as_of,
            dsn=self.dsn,
            tracking_uri=self.tracking_uri,
            who="tester",
            program=Program(git_commit="abc"),
            asked_by=asked_by,
        )

    def fetch(self, version: str, into: Path) -> FetchedModel:
        return fetch_version(self.tracking_uri, "churn", version, into)

    def versions(self) -> list[dict[str, Any]]:
        with MlflowRest(self.tracking_uri) as mlflow:
            found = mlflow.get("model-versions/search", {"filter": "name='churn'"}) or {}
        return list(found["model_versions"])

    def champion(self) -> str | None:
        return current_version(self.tracking_uri, "churn")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with database_and_mlflow(folder) as (server, address):
        for month in range(5):
            ingest(
                PROJECT,
                source=SEEDS / f"month_{month:03}",
                as_of=PROJECT.calendar.as_of(month),
                dsn=server.dsn(),
                reports_dir=folder / "reports",
                who="tester",
            )
        yield World(server.dsn(), address, folder / "artifacts")


@pytest.fixture(scope="module")
def first(world: World) -> Trained:
    return world.train(FIRST)


@pytest.fixture(scope="module")
def second(world: World, first: Trained) -> Trained:
    return world.train(SECOND)


def test_before_the_horizon_has_passed_there_is_nothing_to_train_on(world: World) -> None:
    with pytest.raises(CheckRefused, match="as of 1997-09-27 or later"):
        world.train(date(1997, 8, 31))


def test_the_first_model_beats_the_baseline_and_becomes_champion(
    world: World, first: Trained
) -> None:
    assert first.promoted
    assert "of the baseline" in first.reason
    assert first.validation_time == date(1997, 6, 30)
    assert first.rows == 2357
    assert first.metrics["roc_auc"] > first.baseline["roc_auc"] + 0.01
    assert first.metrics["brier"] < first.baseline["brier"]
    with connect(world.dsn) as connection:
        entry = ledger.history(connection, "churn")[0]
    assert (entry.from_version, entry.to_version, entry.who) == (None, first.version, "tester")
    assert entry.why == first.reason
    assert entry.evidence["run_id"] == first.run_id
    gate = entry.evidence["gate"]
    assert gate["opponent"] == "the baseline"
    verdicts = {check["name"]: check["verdict"] for check in gate["checks"]}
    assert verdicts == {
        "comparison": "passed",
        "slice one-time buyers": "passed",
        "slice regular buyers": "passed",
        "slice lately active": "passed",
        "slice long silent": "passed",
        "leakage": "passed",
        "ONNX parity": "passed",
        "golden rows": "passed",
        "latency": "passed",
        "online features": "skipped",
        "schema": "passed",
    }
    assert all(check["reason"] for check in gate["checks"])
    assert [check.name for check in first.checks] == list(verdicts)


def test_the_run_tells_all_of_it(world: World, first: Trained) -> None:
    with MlflowRest(world.tracking_uri) as mlflow:
        run = (mlflow.get("runs/get", {"run_id": first.run_id}) or {})["run"]
        listed = mlflow.get("artifacts/list", {"run_id": first.run_id, "path": "plots"}) or {}
    metrics = {one["key"]: one["value"] for one in run["data"]["metrics"]}
    for name in evaluate.METRICS:
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"], name
        assert f"baseline_{name}" in metrics
    assert metrics["gain_roc_auc_low"] < metrics["gain_roc_auc"] < metrics["gain_roc_auc_high"]
    assert metrics["gate.latency"] < PROJECT.gate.max_latency_ms
    assert metrics["importance.recency_days"] > metrics["importance.tenure_days"] == 0
    params = {one["key"]: one["value"] for one in run["data"]["params"]}
    assert params["setting.interactions"] == "False"
    assert params["threshold_objective"] == "balanced_accuracy"
    uses = [one["tags"][0]["value"] for one in run["inputs"]["dataset_inputs"]]
    assert sorted(uses) == ["training", "validation"]
    pictures = {Path(file["path"]).stem for file in listed["files"]}
    assert pictures == {
        "roc", "precision_recall", "calibration", "scores", "importance", "months"
    }  # fmt: skip
    (card,) = world.artifacts.rglob("model_card.md")
    text = card.read_text()
    for part in ("# Model card: churn", "| roc_auc |", "one-time buyers", "Gate: accepted"):
        assert part in text
    (gate,) = world.artifacts.rglob("gate.json")
    assert json.loads(gate.read_text())["accepted"] is True
    note = next(tag for tag in run["data"]["tags"] if tag["key"] == "mlflow.note.content")
    assert note["value"].startswith("# Model card: churn")


def test_the_second_model_is_compared_with_the_champion_and_follows_it(
    world: World, first: Trained, second: Trained
) -> None:
    assert second.promoted
    assert f"of champion {first.version}" in second.reason
    assert world.champion() == second.version
    with connect(world.dsn) as connection:
        history = ledger.history(connection, "churn")
    assert [(e.from_version, e.to_version) for e in history] == [
        (None, first.version),
        (first.version, second.version),
    ]


def test_the_downloaded_champion_scores_as_it_did_in_training(
    world: World, second: Trained, tmp_path: Path
) -> None:
    fetched = world.fetch("champion", tmp_path)
    assert fetched.version == second.version
    manifest = fetched.manifest
    assert manifest.features == PROJECT.view.features
    assert manifest.feature_types[0] == "bigint"
    assert manifest.ttl_seconds == 45 * 86400
    golden = np.array(manifest.golden_rows, dtype=np.float64)
    assert np.isnan(golden).any()
    content = fetched.path.read_bytes()
    scores = onnx_export.score(content, golden)
    assert scores == pytest.approx(manifest.golden_scores, abs=1e-6)
    assert np.ptp(scores) > 0.3
    assert manifest.golden_scores[0] != manifest.golden_scores[-1]
    # scikit-learn's estimator beside it gives the same to everyone.
    (folder,) = [
        path.parent for path in world.artifacts.rglob("model.onnx") if path.read_bytes() == content
    ]
    estimator = skops_file.load(folder / "model.skops")
    with connect(world.dsn) as connection:
        everyone = matrix(
            features_at(connection, PROJECT, when=date(1997, 9, 30)), PROJECT.view.features
        )
    assert len(everyone) == 2357
    assert onnx_export.compare(content, estimator, onnx_export.planted(everyone, 0)).holds


def test_the_manifest_says_where_the_model_comes_from(
    world: World, second: Trained, tmp_path: Path
) -> None:
    manifest = world.fetch(second.version, tmp_path).manifest
    origin = manifest.provenance
    with connect(world.dsn) as connection:
        newest = connection.execute(
            "SELECT id::text, digest FROM espalier.snapshots WHERE as_of = %s", [SECOND]
        ).fetchone()
    assert (origin["snapshot_id"], origin["snapshot_digest"]) == newest
    assert origin["git_commit"] == "abc"
    assert origin["seed"] == str(PROJECT.seed)
    assert (origin["train_from"], origin["train_to"]) == ("1997-03-31", "1997-04-30")
    assert origin["validation_time"] == "1997-07-31"
    assert origin["lib.scikit-learn"].startswith("1.")
    assert len(origin["data_digest"]) == 64
    assert manifest.metrics["roc_auc"] == second.metrics["roc_auc"]
    assert manifest.metrics["roc_auc_low"] < second.metrics["roc_auc"]
    assert second.metrics["roc_auc"] < manifest.metrics["roc_auc_high"]
    assert 0.5 < manifest.threshold < 1
    assert manifest.metrics["balanced_accuracy"] > 0.6


def test_training_again_gives_the_same_model(world: World, second: Trained, tmp_path: Path) -> None:
    again = world.train(SECOND)
    before, after = (world.fetch(t.version, tmp_path).manifest for t in (second, again))
    assert after.digest == before.digest
    assert after.threshold == before.threshold
    assert after.metrics == before.metrics
    assert after.provenance == before.provenance
    assert again.promoted
    assert "difference +0.0000, 95% interval +0.0000 to +0.0000" in again.reason


def test_a_training_cut_short_before_its_promotion_is_taken_up_and_not_done_again(
    world: World, second: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = {one["version"] for one in world.versions()}
    with monkeypatch.context() as patched:
        patched.setattr(promotion, "promote", cut)
        with pytest.raises(KeyboardInterrupt):
            world.train(SECOND, asked_by="churn-action-7")
    [registered] = {one["version"] for one in world.versions()} - before
    assert world.champion() != registered
    taken_up = world.train(SECOND, asked_by="churn-action-7")
    assert (taken_up.version, taken_up.promoted) == (registered, True)
    assert world.champion() == registered
    # What it tells is what was found when it was trained.
    assert taken_up.metrics == second.metrics
    assert (taken_up.rows, taken_up.format) == (second.rows, second.format)
    assert taken_up.validation_time == second.validation_time
    assert [check.name for check in taken_up.checks] == [check.name for check in second.checks]
    assert world.train(SECOND, asked_by="churn-action-7") == taken_up
    assert {one["version"] for one in world.versions()} == {*before, registered}
    with connect(world.dsn) as connection:
        entry = ledger.history(connection, "churn")[-1]
    assert (entry.to_version, entry.why) == (registered, taken_up.reason)
    assert entry.evidence["run_id"] == taken_up.run_id
    assert versions.asked_for(world.tracking_uri, "churn", "churn-action-8") is None


def test_a_worse_model_is_registered_but_not_promoted(world: World, second: Trained) -> None:
    champion = world.champion()
    worse = replace(
        PROJECT,
        estimator="churn.estimator:recency_only",
        search=Search(),
        gate=Gate(metric="roc_auc", margin=0.0),
    )
    refused = world.train(SECOND, worse)
    assert not refused.promoted
    assert refused.reason.startswith("comparison: roc_auc")
    assert "below the margin of -0.0000" in refused.reason
    (found,) = (version for version in world.versions() if version["version"] == refused.version)
    tags = {tag["key"]: tag["value"] for tag in found["tags"]}
    assert tags["gate"] == "refused"
    assert tags["gate.comparison"].startswith("refused; roc_auc")
    assert int(refused.version) > int(second.version)
    assert world.champion() == champion
    with connect(world.dsn) as connection:
        last = ledger.last(connection, "churn")
    assert last is not None
    assert last.to_version == champion


def test_a_champion_that_knows_the_labels_cannot_be_judged_by_them(
    world: World, second: Trained
) -> None:
    with connect(world.dsn) as connection:
        frame = training_set(connection, PROJECT, as_of=SECOND)
    split = split_by_time(frame, PROJECT.label)
    scores = judging.champion_scores(PROJECT, split, second.version, world.tracking_uri)
    assert len(scores) == len(split.validation)
    known = replace(split, validation_time=date(1997, 4, 30))
    with pytest.raises(CheckRefused, match="trained on labels up to 1997-04-30"):
        judging.champion_scores(PROJECT, known, second.version, world.tracking_uri)


def test_a_champion_whose_artifact_was_changed_is_refused(world: World, second: Trained) -> None:
    with MlflowRest(world.tracking_uri) as mlflow:
        asked = {"name": "churn", "version": str(world.champion())}
        answer = mlflow.get("model-versions/get-download-uri", asked)
    assert answer is not None
    stored = world.artifacts / answer["artifact_uri"].removeprefix("mlflow-artifacts:/")
    content = (stored / "model.onnx").read_bytes()
    try:
        (stored / "model.onnx").write_bytes(content + b"\0")
        with pytest.raises(BadData, match="sha256"):
            world.train(SECOND)
    finally:
        (stored / "model.onnx").write_bytes(content)


def test_a_model_without_an_onnx_form_is_served_by_skops(
    world: World, second: Trained, tmp_path: Path
) -> None:
    project = replace(
        PROJECT,
        estimator="espalier.training.testing:without_onnx",
        search=Search(space=(("c", (0.1,)),)),
        # Judged by what it is; it need not be as good as the champion here.
        gate=Gate(margin=0.5, max_latency_ms=1000),
    )
    trained = world.train(SECOND, project)
    assert trained.promoted
    assert trained.format == "model.skops"
    (parity,) = (check for check in trained.checks if check.name == "ONNX parity")
    assert parity.verdict == "skipped"
    assert "there is no ONNX form" in parity.reason
    assert "FunctionTransformer" in parity.reason
    fetched = world.fetch("champion", tmp_path)
    assert fetched.path.name == "model.skops"
    golden = np.array(fetched.manifest.golden_rows, dtype=np.float64)
    found = served.open_score("model.skops", fetched.path.read_bytes())(golden)
    assert found == pytest.approx(fetched.manifest.golden_scores, abs=1e-12)
    # The next is compared with it by that file, and it is a whole MLflow model without a pickle.
    followed = world.train(SECOND)
    assert followed.promoted
    assert f"of champion {trained.version}" in followed.reason
    (folder,) = (
        path.parent
        for path in world.artifacts.rglob("MLmodel")
        if "skops" in path.read_text() and "model.onnx" not in path.read_text()
    )
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle")]
    flavor = yaml.safe_load((folder / "MLmodel").read_text())
    assert flavor["flavors"]["sklearn"]["serialization_format"] == "skops"
    assert flavor["signature"]["inputs"]
    assert (folder / "input_example.json").exists()


def test_an_mlflow_that_is_down_is_found_out_before_training(world: World) -> None:
    with pytest.raises(DependencyUnreachable, match="MLflow"):
        replace(world, tracking_uri=f"http://{NOBODY}").train(SECOND)


def test_a_postgresql_that_is_down_is_said_in_one_line(world: World) -> None:
    with pytest.raises(DependencyUnreachable, match="PostgreSQL"):
        replace(world, dsn=f"postgresql://x@{NOBODY}/x").train(SECOND)
