"""The loop of products with one batch, whose labels are classes or numbers: real data, real parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sklearn import datasets

from espalier.orchestration.conftest import Ended, Programs, ended
from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.registry import mlflow_server

DAY = "2024-01-31"
PRODUCT = """
from datetime import date, timedelta

from sklearn.dummy import {dummy}
from sklearn.linear_model import {model}
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from espalier.contract import Column, ColumnType, Table
from espalier.policies import Gate, Validation
from espalier.project import Calendar, Entity, FeatureView, Label, Project

NAMES = {names!r}
KEY = Column(name="sample_id", type=ColumnType.TEXT, description="which")
AT = Column(name="day", type=ColumnType.DATE, description="when")


def build(seed):
    return make_pipeline(StandardScaler(), {model}())


def baseline(seed):
    return {dummy}()


PROJECT = Project(
    name="{name}",
    description="a product of one snapshot",
    entity=Entity(name="sample", join_key="sample_id", description="a sample"),
    tables=(
        Table(
            name="facts",
            key=("sample_id", "day"),
            event_time="day",
            columns=(
                KEY,
                AT,
                *(Column(name=n, type=ColumnType.DOUBLE, description=n) for n in NAMES),
            ),
        ),
        Table(
            name="labels",
            key=("sample_id", "day"),
            event_time="day",
            columns=(KEY, AT, Column(name="target", type=ColumnType.{kind}, description="what")),
        ),
    ),
    view=FeatureView(
        name="samples", table="facts", features=NAMES, ttl=timedelta(days=3650)
    ),
    label=Label(
        table="labels",
        column="target",
        time="day",
        horizon=timedelta(0),
        classes={classes!r},
    ),
    estimator="{name}.project:build",
    baseline="{name}.project:baseline",
    calendar=Calendar(first=date(2024, 1, 31)),
    gate=Gate(suspicious=1.0),
    validation=Validation(by="entity"),
)
"""


@pytest.fixture(scope="module")
def mlflow(server: embedded.Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    embedded.create_database(server, "mlflow_one_snapshot")
    log = folder / "mlflow.log"
    dsn = server.dsn("mlflow_one_snapshot")
    with mlflow_server.serve(dsn, folder / "artifacts", log=log) as uri:
        yield uri


def write_product(folder: Path, name: str, **changes: Any) -> None:
    """The declaration of a product, importable from the folder, and its one batch."""
    data = getattr(datasets, f"load_{name}")()
    names = tuple(f"f{number}" for number in range(data.data.shape[1]))
    package = folder / name
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "project.py").write_text(PRODUCT.format(name=name, names=names, **changes))
    batch = folder / "data" / name / "month_000"
    batch.mkdir(parents=True)
    classes = changes["classes"]
    head = ",".join(["sample_id", "day", *names])
    facts = [f"s{n},{DAY},{','.join(map(repr, row))}" for n, row in enumerate(data.data.tolist())]
    (batch / "facts.csv").write_text("\n".join([head, *facts, ""]))
    labels = [
        f"s{number},{DAY},{classes[value] if classes else float(value)}"
        for number, value in enumerate(data.target.tolist())
    ]
    (batch / "labels.csv").write_text("\n".join(["sample_id,day,target", *labels, ""]))


def loop(programs: Programs, folder: Path, name: str, mlflow: str) -> Ended:
    """Run the loop flow of a product that is declared in the folder."""
    paths = os.pathsep.join([str(folder), programs.environment["PYTHONPATH"]])
    return ended(
        subprocess.Popen(
            [
                *(sys.executable, "-m", "espalier.orchestration.entry"),
                "espalier.orchestration.flows.loop:loop",
                *(f"--project={name}", f"--as-of={DAY}", "--score-all"),
            ],
            cwd=folder,
            env={
                **programs.environment,
                "PYTHONPATH": paths,
                "MLFLOW_TRACKING_URI": mlflow,
                "ESPALIER_DATA_DIR": str(folder / "data"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ),
        seconds=300,
    )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (
            "wine",
            {
                "kind": "TEXT",
                "classes": ("barolo", "grignolino", "barbera"),
                "model": "LogisticRegression",
                "dummy": "DummyClassifier",
            },
        ),
        (
            "diabetes",
            {
                "kind": "DOUBLE",
                "classes": (),
                "model": "LinearRegression",
                "dummy": "DummyRegressor",
            },
        ),
    ],
)
def test_one_batch_is_enough(  # noqa: PLR0917  # fixtures
    programs: Programs,
    server: embedded.Server,
    database: str,
    mlflow: str,
    tmp_path: Path,
    name: str,
    changes: dict[str, Any],
) -> None:
    folder = tmp_path / "product"
    folder.mkdir()
    write_product(folder, name, **changes)
    first = loop(programs, folder, name, mlflow)
    assert first.code == 0, first.err
    assert (first.facts["decision"], first.facts["outcome"]) == ("train", "promoted")
    assert first.facts["champion"] == "1"
    with connect(server.dsn(database)) as connection:
        connection.execute("DELETE FROM espalier.actions")
        # As on another day, but for the batch: the champion is looked at.
    again = loop(programs, folder, name, mlflow)
    assert again.code == 0, again.err
    assert (again.facts["decision"], again.facts["drift"]) == ("none", None)
    assert again.facts["scored"] == len(getattr(datasets, f"load_{name}")().target)
    report = tmp_path / "reports" / "evidently" / name / f"{DAY}.json"
    told = json.loads(report.read_text())["espalier"]
    assert told["headline"].startswith("Nothing to compare: the features of 2024-01-31 are those")
