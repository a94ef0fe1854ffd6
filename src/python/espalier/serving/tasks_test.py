"""One product of each task, from files to an answer: trained, registered, loaded and asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from espalier.errors import BadData, CheckRefused, ScoreInvalid
from espalier.ingest.run import ingest
from espalier.policies import Serving, Validation
from espalier.project import Project
from espalier.registry import loadable
from espalier.registry.download import FetchedModel, fetch_document, fetch_version
from espalier.registry.testing import database_and_mlflow
from espalier.serving.decision import Policy, decide, judge
from espalier.serving.loading import LoadedModel, load
from espalier.serving.prediction import Prediction
from espalier.serving.reader import FeatureRows
from espalier.serving.scorer import checked, valid
from espalier.training import fitting, skops_file
from espalier.training.reproduce import reproduce
from espalier.training.split import split_rows
from espalier.training.testing_tasks import AS_OF, CANCER, DIABETES, WINE, frame, write
from espalier.training.train import train
from espalier.training.trained import Trained

PROJECTS = {"cancer": CANCER, "wine": WINE, "diabetes": DIABETES}
NOW = datetime(2026, 2, 1, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    dsn: str
    tracking_uri: str
    folder: Path

    def train(self, project: Project) -> Trained:
        return train(
            project, as_of=AS_OF, dsn=self.dsn, tracking_uri=self.tracking_uri, who="tester"
        )

    def fetch(self, trained: Trained, project: Project) -> FetchedModel:
        into = self.folder / f"{project.name}-{trained.version}"
        return fetch_version(self.tracking_uri, project.name, trained.version, into)

    def document(self, trained: Trained, project: Project, name: str) -> str:
        return fetch_document(self.tracking_uri, project.name, trained.version, name)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with database_and_mlflow(folder) as (server, address):
        for name, project in PROJECTS.items():
            ingest(
                project,
                source=write(project, folder / name),
                as_of=AS_OF,
                dsn=server.dsn(),
                reports_dir=folder / "reports",
                who="tester",
            )
        yield World(server.dsn(), address, folder)


@pytest.fixture(scope="module")
def trained(world: World) -> dict[str, Trained]:
    return {name: world.train(project) for name, project in PROJECTS.items()}


def opened(fetched: FetchedModel) -> LoadedModel:
    return load(
        fetched.name, fetched.version, folder=fetched.path.parent, manifest=fetched.manifest
    )


def asked(model: LoadedModel, matrix: np.ndarray) -> list[Prediction | ScoreInvalid]:
    """What the server answers for rows of features."""
    keys = tuple(str(number) for number in range(len(matrix)))
    judged = judge(
        model, keys, FeatureRows(keys, (NOW,) * len(keys), matrix), Policy(Serving()), now=NOW
    )
    scores = model.scorer.run(judged.rows.matrix)
    outcomes = decide(model, judged, scores, valid(scores, model.manifest.task))
    return [outcomes[key] for key in keys]


@pytest.mark.parametrize("name", PROJECTS)
def test_a_model_that_is_clearly_better_than_the_baseline_is_promoted(
    world: World, trained: dict[str, Trained], name: str
) -> None:
    found, project = trained[name], PROJECTS[name]
    assert found.promoted, found.reason
    assert found.format == "model.onnx"
    verdicts = {check.name: check.verdict for check in found.checks}
    assert verdicts["comparison"] == verdicts["ONNX parity"] == verdicts["golden rows"] == "passed"
    everyone = len(frame(project))
    split = split_rows(frame(project), project)
    assert found.rows == len(split.train)
    assert 0.15 < len(split.validation) / everyone < 0.35
    gate = json.loads(world.document(found, project, "gate.json"))
    assert gate["comparison"]["low"] > 0.2
    card = world.document(found, project, "model_card.md")
    assert "## Across entities" in card
    assert "validated on entities that were not trained on" in card


@pytest.mark.parametrize("name", PROJECTS)
def test_the_server_scores_as_scikit_learn(
    world: World, trained: dict[str, Trained], name: str
) -> None:
    project = PROJECTS[name]
    fetched = world.fetch(trained[name], project)
    loadable.check(fetched)
    model, manifest = opened(fetched), fetched.manifest
    assert (manifest.task, manifest.classes) == (project.task.value, project.label.classes)
    split = split_rows(frame(project), project)
    estimator = fitting.fit(project, project.estimator, split.train)
    rows = fitting.matrix(split.validation, project.view.features)
    expected = fitting.scores_of(estimator, rows)
    scores = checked(model.scorer.run(rows), manifest.task)
    assert scores.shape == expected.shape
    np.testing.assert_allclose(scores, expected, atol=manifest.golden_tolerance)
    # All classes, and the whole range, are among the golden rows.
    golden = np.array(manifest.golden_scores)
    if manifest.classes:
        assert set(golden.argmax(axis=1)) == {0, 1, 2}
    else:
        assert np.ptp(golden) > 0.9 * np.ptp(expected)


def test_of_several_classes_the_most_probable_is_answered_with_all_probabilities(
    world: World, trained: dict[str, Trained]
) -> None:
    model = opened(world.fetch(trained["wine"], WINE))
    split = split_rows(frame(WINE), WINE)
    rows = fitting.matrix(split.validation, WINE.view.features)
    answers = asked(model, rows)
    right = 0
    for answer, place in zip(answers, split.validation["label"], strict=True):
        assert isinstance(answer, Prediction)
        assert sum(answer.probabilities) == pytest.approx(1, abs=1e-3)
        assert answer.score == max(answer.probabilities)
        assert answer.probabilities[int(answer.prediction)] == answer.score
        assert answer.label == WINE.label.classes[int(answer.prediction)]
        right += answer.prediction == place
    assert right / len(answers) > 0.9
    assert right / len(answers) == pytest.approx(trained["wine"].metrics["accuracy"])
    broken = rows[:2].copy()
    broken[1, 0] = np.inf
    fine, refused = asked(model, broken)
    assert isinstance(fine, Prediction)
    assert isinstance(refused, ScoreInvalid)
    assert "no probability of each class" in str(refused)


def test_a_number_is_answered_as_it_is(world: World, trained: dict[str, Trained]) -> None:
    model = opened(world.fetch(trained["diabetes"], DIABETES))
    rows = fitting.matrix(frame(DIABETES), DIABETES.view.features)
    answers = asked(model, rows)
    predictions = [answer for answer in answers if isinstance(answer, Prediction)]
    values = [prediction.score for prediction in predictions]
    assert len(values) == len(rows)
    assert np.ptp(values) > 100
    assert all(one.prediction == one.score and one.probabilities == () for one in predictions)
    rows[0, 0] = np.nan
    assert isinstance(asked(model, rows[:1])[0], Prediction)
    rows[0, 0] = -np.inf
    (refused,) = asked(model, rows[:1])
    assert isinstance(refused, ScoreInvalid)
    assert "no finite number" in str(refused)


@pytest.mark.parametrize(
    ("name", "estimator"),
    [("wine", "classifier_without_onnx"), ("diabetes", "regressor_without_onnx")],
)
def test_what_has_no_onnx_form_is_served_by_skops(
    world: World, trained: dict[str, Trained], name: str, estimator: str
) -> None:
    reference = f"espalier.training.testing_tasks:{estimator}"
    project = PROJECTS[name]
    gate = replace(project.gate, margin=0.5, max_latency_ms=1000.0)
    found = world.train(replace(project, estimator=reference, gate=gate))
    assert found.format == "model.skops"
    # The champion is another file of the same task, by which it could be judged.
    assert f"of champion {trained[name].version}" in found.checks[0].reason
    fetched = world.fetch(found, project)
    loadable.check(fetched)
    rows = fitting.matrix(frame(project), project.view.features)[:9]
    expected = fitting.scores_of(skops_file.load(fetched.path), rows)
    rows[3, 2] = np.inf
    scores = opened(fetched).scorer.run(rows)
    kept = np.arange(9) != 3
    np.testing.assert_allclose(scores[kept], expected[kept], atol=1e-9)
    assert np.isnan(scores[3]).all()


@pytest.mark.parametrize("name", ["wine", "diabetes"])
def test_a_version_can_be_made_again(world: World, trained: dict[str, Trained], name: str) -> None:
    project = PROJECTS[name]
    again = reproduce(
        project,
        trained[name].version,
        dsn=world.dsn,
        tracking_uri=world.tracking_uri,
        who="tester",
    )
    assert again.equal, again.differences


def test_a_champion_that_may_have_seen_the_entities_cannot_judge(
    world: World, trained: dict[str, Trained]
) -> None:
    with pytest.raises(CheckRefused, match=r"validated by entity, a share of 0\.25 by seed 0"):
        world.train(replace(WINE, seed=1))
    other = replace(WINE, validation=Validation(by="entity", share=0.3))
    with pytest.raises(CheckRefused, match="keep the seed and the validation"):
        world.train(other)


def test_a_champion_of_other_classes_cannot_be_compared(
    world: World, trained: dict[str, Trained]
) -> None:
    label = replace(WINE.label, classes=tuple(reversed(WINE.label.classes)))
    with pytest.raises(CheckRefused, match="they cannot be compared; declare it as a product"):
        world.train(replace(WINE, label=label))


def test_a_file_that_is_not_what_its_manifest_says_is_refused(
    world: World, trained: dict[str, Trained]
) -> None:
    wine = world.fetch(trained["wine"], WINE)
    folder, manifest = wine.path.parent, wine.manifest
    assert hashlib.sha256(wine.path.read_bytes()).hexdigest() == manifest.digest
    for changes, told in (
        ({"classes": (*manifest.classes, "class_3")}, "gives 3 classes, its manifest names 4"),
        ({"task": "regression", "classes": ()}, "and an output 'value'"),
        ({"golden_scores": (0.5,) * len(manifest.golden_rows)}, "a probability for each class"),
    ):
        with pytest.raises(BadData, match=told):
            load("wine", "1", folder=folder, manifest=replace(manifest, **changes))
