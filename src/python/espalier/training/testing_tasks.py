"""Products of scikit-learn's own data sets, one of each task: data of one snapshot."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from espalier.contract import Column, ColumnType, Table
from espalier.policies import Gate, Slice, Validation
from espalier.project import Calendar, Entity, FeatureView, Label, Project

AS_OF = date(2026, 1, 31)
CLASSES = ("class_0", "class_1", "class_2")


def linear_classifier(*, seed: int = 0, c: float = 1.0) -> Pipeline:
    """Logistic regression over scaled columns; `c` is the inverse strength of its penalty."""
    return make_pipeline(
        SimpleImputer(strategy="median"),
        StandardScaler(),
        LogisticRegression(C=c, max_iter=1000, random_state=seed),
    )


def linear_regressor(*, seed: int = 0) -> Pipeline:
    """Ridge regression over scaled columns."""
    steps = SimpleImputer(strategy="median"), StandardScaler()
    return make_pipeline(*steps, Ridge(alpha=1.0, random_state=seed))


def trees(*, seed: int = 0) -> HistGradientBoostingRegressor:
    """Boosted trees, which take missing values."""
    return HistGradientBoostingRegressor(max_iter=40, random_state=seed)


def classifier_without_onnx(*, seed: int = 0) -> Pipeline:
    """skl2onnx has no converter for a function."""
    return make_pipeline(FunctionTransformer(np.arcsinh), linear_classifier(seed=seed))


def regressor_without_onnx(*, seed: int = 0) -> Pipeline:
    """As `classifier_without_onnx`."""
    return make_pipeline(FunctionTransformer(np.arcsinh), linear_regressor(seed=seed))


def most_frequent(*, seed: int = 0) -> DummyClassifier:
    """The classes' shares, whatever the row."""
    return DummyClassifier(strategy="prior", random_state=seed)


def mean(*, seed: int = 0) -> DummyRegressor:  # noqa: ARG001  # a project calls it with one
    """The labels' mean, whatever the row."""
    return DummyRegressor()


def _names(found: Any) -> tuple[str, ...]:
    return tuple(name.split(" (")[0].replace(" ", "_").replace("/", "_") for name in found)


def _project(
    name: str, features: tuple[str, ...], label: Label, kind: ColumnType, **more: Any
) -> Project:
    key = Column(name="id", type=ColumnType.TEXT, description="the row's number in the file")
    day = Column(name="day", type=ColumnType.DATE, description="the snapshot's day")
    return Project(
        name=name,
        description=f"scikit-learn's {name}",
        entity=Entity(name="row", join_key="id", description="a row of the file"),
        tables=(
            Table(
                name="features",
                key=("id", "day"),
                event_time="day",
                columns=(
                    key,
                    day,
                    *(
                        Column(name=one, type=ColumnType.DOUBLE, description=one)
                        for one in features
                    ),
                ),
            ),
            Table(
                name="labels",
                key=("id", "day"),
                event_time="day",
                columns=(key, day, Column(name="target", type=kind, description="what it is")),
            ),
        ),
        view=FeatureView(
            name="measures", table="features", features=features, ttl=timedelta(days=3650)
        ),
        label=label,
        calendar=Calendar(first=AS_OF),
        validation=Validation(by="entity"),
        **more,
    )


def _label(**more: Any) -> Label:
    return Label(table="labels", column="target", time="day", horizon=timedelta(0), **more)


CANCER = _project(
    "cancer",
    _names(datasets.load_breast_cancer().feature_names),
    _label(positive_means="the tumour is benign"),
    ColumnType.BOOLEAN,
    estimator="espalier.training.testing_tasks:linear_classifier",
    baseline="espalier.training.testing_tasks:most_frequent",
    # It can honestly be told from these measures.
    gate=Gate(suspicious=1.0),
)
WINE = _project(
    "wine",
    _names(datasets.load_wine().feature_names),
    _label(classes=CLASSES),
    ColumnType.TEXT,
    estimator="espalier.training.testing_tasks:linear_classifier",
    baseline="espalier.training.testing_tasks:most_frequent",
    gate=Gate(suspicious=1.0),
    slices=(Slice(name="strong", feature="alcohol", minimum=13),),
)
DIABETES = _project(
    "diabetes",
    _names(datasets.load_diabetes().feature_names),
    _label(),
    ColumnType.DOUBLE,
    estimator="espalier.training.testing_tasks:linear_regressor",
    baseline="espalier.training.testing_tasks:mean",
    slices=(Slice(name="heavy", feature="bmi", minimum=0),),
)
_LOADERS = {
    "cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "diabetes": datasets.load_diabetes,
}


def frame(project: Project) -> pd.DataFrame:
    """The project's data as a training set has it."""
    found = _LOADERS[project.name]()
    rows = pd.DataFrame(found.data, columns=list(project.view.features))
    label: Any = found.target
    if project.label.classes:
        label = np.array(project.label.classes, dtype=object)[found.target]
    elif project.label.positive_means:
        label = found.target.astype(bool)
    rows.insert(0, "feature_time", pd.Timestamp(AS_OF, tz="UTC"))
    rows.insert(0, "label", label)
    rows.insert(0, "label_time", pd.Timestamp(AS_OF, tz="UTC"))
    rows.insert(0, "id", [f"{number:04}" for number in range(len(rows))])
    return rows


def write(project: Project, into: Path) -> Path:
    """The project's one batch as files, as `ingest` takes them, in a new folder."""
    rows = frame(project)
    into.mkdir(parents=True)
    rows["day"] = AS_OF.isoformat()
    rows[["id", "day", *project.view.features]].to_csv(into / "features.csv", index=False)
    labels = rows[["id", "day"]].assign(target=rows["label"])
    if project.label.positive_means:
        labels["target"] = np.where(rows["label"], "true", "false")
    labels.to_csv(into / "labels.csv", index=False)
    return into
