"""Two more products for tests, small and unlike churn: several classes, and a number.

Their models are made by hand, so that what they answer can be said without them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from espalier.contract import Column, ColumnType, Table
from espalier.project import Calendar, Entity, FeatureView, Label, Project, Task
from espalier.registry.manifest import MANIFEST, ONNX, ModelManifest
from espalier.serving.testing import FEATURE_TIME, fill_table

CLASSES = ("barolo", "grignolino", "barbera")
FEATURES = ("first", "second", "third")


def _project(name: str, key: str, key_type: ColumnType, label: Column, told: Label) -> Project:
    time = Column(name="day", type=ColumnType.DATE, description="the day")
    entity = Column(name=key, type=key_type, description="which one")
    features = [
        Column(name=feature, type=ColumnType.DOUBLE, description=feature) for feature in FEATURES
    ]
    return Project(
        name=name,
        description=f"What is {label.description}?",
        entity=Entity(name="one", join_key=key, description="which one"),
        tables=(
            Table(
                name="facts",
                key=(key, "day"),
                event_time="day",
                columns=(entity, time, *features),
            ),
            Table(name="labels", key=(key, "day"), event_time="day", columns=(entity, time, label)),
        ),
        view=FeatureView(
            name="facts_daily", table="facts", features=FEATURES, ttl=timedelta(days=60)
        ),
        label=told,
        estimator="nowhere:estimator",
        baseline="nowhere:baseline",
        calendar=Calendar(first=date(1998, 6, 30)),
    )


# Integers as keys, and several classes.
WINE = _project(
    "wine",
    "bottle",
    ColumnType.INTEGER,
    Column(
        name="grape", type=ColumnType.TEXT, allowed=CLASSES, description="the grape of this bottle"
    ),
    Label(table="labels", column="grape", time="day", horizon=timedelta(0), classes=CLASSES),
)
# Text as keys, and a number.
HOUSES = _project(
    "houses",
    "house_id",
    ColumnType.TEXT,
    Column(name="price", type=ColumnType.DOUBLE, description="the price of this house"),
    Label(table="labels", column="price", time="day", horizon=timedelta(0)),
)
KEYS = {"wine": [str(number) for number in range(100)], "houses": [f"h{n}" for n in range(100)]}


def features_of(key: str) -> list[float]:
    """The feature values of one of `KEYS`."""
    number = int(key.removeprefix("h"))
    return [float(number % 7), float(number % 5), float(number % 3)]


def probabilities(key: str, slope: float = 1.0) -> list[float]:
    """What wine's model of `slope` gives for a bottle: each feature speaks for its class."""
    powers = np.exp(slope * np.array(features_of(key)))
    return [float(one) for one in powers / powers.sum()]


def price(key: str, slope: float = 1.0) -> float:
    """What the model of `slope` gives for a house."""
    return 1000 + slope * sum(features_of(key))


def write_model(project: Project, folder: Path, *, slope: float = 1.0) -> ModelManifest:
    """Write a model version of WINE or HOUSES as training does."""
    folder.mkdir(parents=True, exist_ok=True)
    content = _onnx(project.task, slope)
    (folder / ONNX).write_bytes(content)
    golden, several = KEYS[project.name][::30], project.task is Task.MULTICLASS
    manifest = ModelManifest(
        project=project.name,
        join_key=project.entity.join_key,
        view=project.view.name,
        features=FEATURES,
        feature_types=("double precision",) * len(FEATURES),
        ttl_seconds=project.view.ttl.total_seconds(),
        threshold=0.5,
        file=ONNX,
        digest=hashlib.sha256(content).hexdigest(),
        metrics={"accuracy": 0.75} if several else {"rmse": 12.5},
        provenance={"slope": str(slope)},
        golden_rows=tuple(tuple(features_of(key)) for key in golden),
        golden_scores=tuple(tuple(probabilities(key, slope)) for key in golden)
        if several
        else tuple(price(key, slope) for key in golden),
        task=project.task.value,
        classes=project.label.classes,
    )
    (folder / MANIFEST).write_text(manifest.to_json())
    return manifest


def _onnx(task: Task, slope: float) -> bytes:
    # The server's own tests of what it imports do not want these.
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LinearRegression, LogisticRegression

    rows: NDArray[np.float32] = np.eye(3, dtype=np.float32)
    options: dict[str, object] = {}
    if task is Task.MULTICLASS:
        model = LogisticRegression().fit(rows, [0, 1, 2])
        model.coef_, model.intercept_ = slope * np.eye(3), np.zeros(3)
        options = {"options": {id(model): {"zipmap": False}}}
    else:
        model = LinearRegression().fit(rows, [0.0, 1.0, 2.0])
        model.coef_, model.intercept_ = np.full(3, slope), 1000.0
        options = {"final_types": [("value", FloatTensorType([None, 1]))]}
    graph = convert_sklearn(
        model, initial_types=[("features", FloatTensorType([None, 3]))], **options
    )
    content: bytes = graph.SerializeToString()
    return content


def create_online_table(dsn: str, project: Project, keys: Sequence[str] | None = None) -> None:
    """Make and fill the online table of WINE or HOUSES."""
    rows = [
        (key, FEATURE_TIME, FEATURE_TIME, *features_of(key)) for key in keys or KEYS[project.name]
    ]
    fill_table(dsn, project, dict.fromkeys(FEATURES, "double precision"), rows)


def write_packages(folder: Path) -> None:
    """Make WINE and HOUSES what a program finds by their names, with `folder` in its path."""
    for name in ("wine", "houses"):
        (folder / name).mkdir(parents=True)
        (folder / name / "project.py").write_text(
            f"from espalier.serving.testing_products import {name.upper()} as PROJECT\n"
        )
