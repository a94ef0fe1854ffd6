"""A version is trained again: PostgreSQL, an MLflow server and the product are all real."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import pytest

from churn import estimator as churn_estimator
from churn.project import PROJECT
from espalier.errors import BadData, DependencyUnreachable, ModelNotReady
from espalier.ingest.run import ingest
from espalier.postgres import embedded, migrate
from espalier.postgres.connect import connect
from espalier.registry import ledger
from espalier.registry.manifest import ONNX, PROVENANCE
from espalier.registry.testing import database_and_mlflow
from espalier.registry.versions import list_versions
from espalier.testing_web import NOBODY
from espalier.training import provenance
from espalier.training import reproduce as module
from espalier.training.program import Program
from espalier.training.reproduce import Reproduction
from espalier.training.train import train

SEEDS = Path("data/seeds/churn")
AS_OF = date(1997, 9, 30)
MONTHS = range(4)
PROGRAM = Program(git_commit="abc", git_dirty="false", lock_digest="10cc", lock_source="lock")


@dataclass(frozen=True)
class World:
    """The running services, with version 1 of churn."""

    server: embedded.Server
    tracking_uri: str
    folder: Path

    @property
    def dsn(self) -> str:
        return self.server.dsn()

    def again(self, project=PROJECT, *, dsn: str = "", program=PROGRAM) -> Reproduction:
        return module.reproduce(
            project,
            "1",
            dsn=dsn or self.dsn,
            tracking_uri=self.tracking_uri,
            who="another",
            program=program,
        )

    def stored(self, name: str) -> Path:
        (found,) = (self.folder / "artifacts").rglob(name)
        return found


def store(dsn: str, month: int, reports: Path, *, source: Path = SEEDS, revision=False) -> None:
    ingest(
        PROJECT,
        source=source / f"month_{month:03}",
        as_of=PROJECT.calendar.as_of(month),
        dsn=dsn,
        reports_dir=reports,
        who="tester",
        revision=revision,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with database_and_mlflow(folder) as (server, uri):
        for month in MONTHS:
            store(server.dsn(), month, folder)
        trained = train(
            PROJECT,
            as_of=AS_OF,
            dsn=server.dsn(),
            tracking_uri=uri,
            who="tester",
            program=PROGRAM,
        )
        assert trained.version == "1"
        yield World(server, uri, folder)


def changed(found: Reproduction, part: str) -> list[str]:
    return [one.name for one in found.differences if one.part == part]


def test_the_same_again_is_equal_bit_for_bit_and_leaves_nothing(world: World) -> None:
    with connect(world.dsn) as connection:
        before = ledger.history(connection, "churn")
    found = world.again()
    assert found.differences == ()
    assert found.equal
    assert found.same_result
    names = {one.name for one in found.compared}
    assert {"digest", "scores_digest", "train_digest", "threshold", "metric roc_auc"} <= names
    assert {"scores of the recorded model", "contract_digest", "library numpy", "lock"} <= names
    assert "snapshot 1997-06-30 revision 1" in names
    with connect(world.dsn) as connection:
        assert ledger.history(connection, "churn") == before
    assert [v.version for v in list_versions(world.tracking_uri, "churn")] == ["1"]


def test_another_seed_is_named_and_the_recorded_one_is_trained_with(world: World) -> None:
    found = world.again(replace(PROJECT, seed=7))
    assert changed(found, "input") == ["seed"]
    (seed,) = found.differences
    assert (seed.recorded, seed.now) == (str(PROJECT.seed), "7")
    assert found.same_result
    assert not found.equal


def test_another_gate_and_another_view_are_named(world: World) -> None:
    gate = replace(PROJECT.gate, margin=0.5)
    found = world.again(replace(PROJECT, gate=gate))
    assert changed(found, "input") == ["gate.margin"]
    assert found.same_result
    view = replace(PROJECT.view, features=PROJECT.view.features[::-1])
    found = world.again(replace(PROJECT, view=view))
    assert {"view_digest", "view.features"} <= set(changed(found, "input"))
    assert {"train_digest", "digest"} <= set(changed(found, "result"))


def test_a_library_of_another_version_is_named(world: World, monkeypatch) -> None:
    monkeypatch.setattr(
        provenance,
        "package_version",
        lambda name: "0.1" if name == "scikit-learn" else version(name),
    )
    found = world.again()
    assert changed(found, "input") == ["library scikit-learn"]
    assert found.differences[0].now == "0.1"
    assert not found.equal


def test_another_commit_is_told_and_is_no_difference_of_the_model(world: World) -> None:
    found = world.again(program=replace(PROGRAM, git_commit="def", git_dirty="true"))
    assert changed(found, "context") == ["commit", "uncommitted changes"]
    assert found.equal
    found = world.again(program=replace(PROGRAM, lock_digest="other"))
    assert changed(found, "input") == ["lock"]
    # Those of a checkout and of a PEX are of different kinds.
    found = world.again(program=replace(PROGRAM, lock_digest="other", lock_source="PEX-INFO"))
    assert found.differences == ()


def test_training_code_that_changed_gives_another_model_which_is_told(
    world: World, monkeypatch
) -> None:
    real = churn_estimator.build

    def build(**settings):
        estimator = real(**settings)
        estimator.set_params(linear__model__tol=0.5)
        return estimator

    monkeypatch.setattr(churn_estimator, "build", build)
    found = world.again()
    assert changed(found, "input") == []
    assert {"digest", "scores_digest", "scores of the recorded model"} <= set(
        changed(found, "result")
    )
    (scores,) = [one for one in found.differences if one.name == "scores of the recorded model"]
    assert "differ, by up to" in scores.now
    assert not found.same_result


@pytest.fixture
def database(world: World, request) -> str:
    """An empty database beside the first."""
    name = request.node.name[:50]
    embedded.create_database(world.server, name)
    with connect(world.server.dsn(name)) as connection:
        migrate.migrate(connection)
    return world.server.dsn(name)


@pytest.fixture
def corrected(tmp_path: Path) -> Path:
    """The batches, with amounts in month_000 that differ."""
    shutil.copytree(SEEDS, tmp_path / "seeds")
    path = tmp_path / "seeds/month_000/features.csv"
    header, *rows = path.read_text().splitlines()
    at = header.split(",").index("spend_total")
    for place, row in enumerate(rows):
        values = row.split(",")
        values[at] = f"{float(values[at]) + place % 7:.2f}"
        rows[place] = ",".join(values)
    path.write_text("\n".join([header, *rows]) + "\n")
    return tmp_path / "seeds"


def test_another_database_with_the_same_batches_will_do(
    world: World, database: str, tmp_path
) -> None:
    for month in MONTHS:
        store(database, month, tmp_path)
    assert world.again(dsn=database).differences == ()


def test_a_snapshot_of_other_content_is_named(
    world: World, database: str, corrected: Path, tmp_path
) -> None:
    for month in MONTHS:
        store(database, month, tmp_path, source=corrected)
    found = world.again(dsn=database)
    assert changed(found, "input") == ["snapshot 1997-06-30 revision 1"]
    assert {"train_digest", "digest", "scores_digest"} <= set(changed(found, "result"))


def test_a_snapshot_that_is_missing_is_named(world: World, database: str, tmp_path) -> None:
    with pytest.raises(BadData, match="none of the 4 snapshots"):
        world.again(dsn=database)
    for month in (0, 1, 3):
        store(database, month, tmp_path)
    found = world.again(dsn=database)
    assert changed(found, "input") == ["snapshot 1997-08-31 revision 1"]
    assert found.differences[-1].now == "not stored"


def test_a_revision_stored_later_is_left_out(
    world: World, database: str, corrected: Path, tmp_path
) -> None:
    for month in MONTHS:
        store(database, month, tmp_path)
    store(database, 0, tmp_path, source=corrected, revision=True)
    with connect(database) as connection:
        seen = provenance.known_snapshots(connection, PROJECT, AS_OF)
    assert [one["revision"] for one in seen] == [1, 2, 1, 1, 1]
    assert world.again(dsn=database).differences == ()


def test_a_version_that_tells_nothing_of_its_provenance_is_not_ready(world: World) -> None:
    path = world.stored(PROVENANCE)
    text = path.read_text()
    try:
        path.unlink()
        with pytest.raises(ModelNotReady, match="train again"):
            world.again()
        path.write_text(text.replace('"seed": 1997', '"seed": 1998'))
        with pytest.raises(BadData, match=r"provenance\.json.*was registered with"):
            world.again()
    finally:
        path.write_text(text)


def test_a_model_that_was_replaced_is_not_loaded(world: World) -> None:
    path = world.stored(ONNX)
    content = path.read_bytes()
    try:
        path.write_bytes(content + b"\0")
        with pytest.raises(BadData, match="sha256"):
            world.again()
    finally:
        path.write_bytes(content)


def test_a_registry_that_is_down_is_said_in_one_line(world: World) -> None:
    with pytest.raises(DependencyUnreachable, match="MLflow"):
        replace(world, tracking_uri=f"http://{NOBODY}").again()
