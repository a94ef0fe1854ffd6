"""What an ML product declares, as frozen values.

From one `Project` come the SQL tables, the Great Expectations suite, Feast's definitions, the
training set, the gate and the server's input check, so they cannot disagree. Nothing here touches
a library or a database.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from importlib import import_module
from typing import Any

from espalier.contract import ColumnType, Table
from espalier.errors import ConfigurationError
from espalier.label import Label, Task, check_label
from espalier.policies import (
    METRICS,
    Decision,
    Gate,
    Monitoring,
    Retraining,
    Search,
    Serving,
    Slice,
    Validation,
)

__all__ = [
    "Calendar",
    "Entity",
    "FeatureView",
    "Label",
    "Project",
    "Task",
    "load_function",
    "load_project",
]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, kw_only=True)
class Entity:
    """Whom predictions are about. `join_key` is the column that identifies one."""

    name: str
    join_key: str
    description: str


@dataclass(frozen=True, kw_only=True)
class FeatureView:
    """Features of one table, as Feast and the online store know them.

    A feature row older than `ttl` at the time of use is stale.
    """

    name: str
    table: str
    features: tuple[str, ...]
    ttl: timedelta


def batch_folder(month: int) -> str:
    """The name of a batch's folder, by the batch's number."""
    return f"month_{month:03}"


@dataclass(frozen=True, kw_only=True)
class Calendar:
    """When batches come: `month_000` is known on `first`, each later one a month end later."""

    first: date

    def as_of(self, month: int) -> date:
        """The month end at which batch number `month` is known."""
        index = self.first.year * 12 + self.first.month + month
        return date(index // 12, index % 12 + 1, 1) - timedelta(days=1)

    def newest(self, today: date) -> date:
        """The newest batch day up to a day, which is not before the first."""
        months = (today.year - self.first.year) * 12 + today.month - self.first.month
        return self.as_of(months if self.as_of(months) <= today else months - 1)

    def month(self, as_of: date) -> int:
        """The batch number known on `as_of`; raises ConfigurationError when none is."""
        number = (as_of.year - self.first.year) * 12 + as_of.month - self.first.month
        if number < 0 or self.as_of(number) != as_of:
            raise ConfigurationError(
                f"{as_of} is not a batch day: the first is {self.first}, then each month's end",
                fix="name the folder with --source to ingest another day",
            )
        return number


@dataclass(frozen=True, kw_only=True)
class Project:
    """One ML product.

    `estimator` and `baseline` name a function as `module:function` that returns an unfitted
    scikit-learn classifier, or for a number a regressor, over the view's features in declared
    order, called with `seed=` and, the estimator, with the settings of `search`; they are named
    rather than imported so that the prediction server does not carry what only training needs.
    `calibration` of the scores is "none", "sigmoid" or "isotonic"; it and `decision` are of two
    classes alone. A gate that names no metric gets the task's own. `full_data` may name one that
    writes all batches into a folder, where the repository holds only a sample.
    """

    name: str
    description: str
    entity: Entity
    tables: tuple[Table, ...]
    view: FeatureView
    label: Label
    estimator: str
    baseline: str
    calendar: Calendar
    gate: Gate = field(default_factory=Gate)
    serving: Serving = field(default_factory=Serving)
    search: Search = field(default_factory=Search)
    validation: Validation = field(default_factory=Validation)
    calibration: str = "none"
    decision: Decision = field(default_factory=Decision)
    slices: tuple[Slice, ...] = ()
    monitoring: Monitoring = field(default_factory=Monitoring)
    retraining: Retraining = field(default_factory=Retraining)
    full_data: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a declaration whose parts do not fit each other."""
        for kind, name in [
            ("project", self.name),
            ("view", self.view.name),
            *(("table", t.name) for t in self.tables),
            *(("column", c.name) for t in self.tables for c in t.columns),
        ]:
            if not _NAME.fullmatch(name):
                raise ConfigurationError(
                    f"{kind} name {name!r} in project {self.name!r}",
                    fix="use a-z, 0-9 and _, a letter first, at most 40 characters",
                )
        for table in self.tables:
            for key in (*table.key, *filter(None, [table.event_time])):
                table.column(key)
        features, labels = self.table(self.view.table), self.table(self.label.table)
        for name in self.view.features:
            if features.column(name).type not in (ColumnType.INTEGER, ColumnType.DOUBLE):
                raise ConfigurationError(
                    f"feature {name} of project {self.name} is {features.column(name).type.value}",
                    fix="declare features as INTEGER or DOUBLE",
                )
        for table in (features, labels):
            table.column(self.entity.join_key)
            if table.event_time is None:
                raise ConfigurationError(f"table {table.name} needs an event_time")
        check_label(self.label, labels.column(self.label.column), self.name)
        self._check_task()
        self._check_training()
        self._check_monitoring()

    def _check_task(self) -> None:
        """Refuse policies that this kind of label cannot have, and name the gate's metric."""
        task, known = self.task, METRICS[self.task.value]
        if not self.gate.metric:
            object.__setattr__(self, "gate", replace(self.gate, metric=known[0]))
        if self.gate.metric not in known:
            raise ConfigurationError(
                f"a {task.value} gate cannot use metric {self.gate.metric!r}",
                fix=f"use {', '.join(known)}",
            )
        if task is Task.BINARY:
            score = self.serving.default_score
            if score is not None and not 0 <= score <= 1:
                raise ConfigurationError(
                    f"default_score {score:g} is no probability", fix="declare 0 to 1"
                )
            return
        for what, declared in (
            (f"calibration {self.calibration!r}", self.calibration != "none"),
            ("a decision", self.decision != Decision()),
        ):
            if declared:
                raise ConfigurationError(
                    f"project {self.name} declares {what} and its label is {task.value}",
                    fix="leave it out: it is of labels of two classes",
                )
        if task is Task.MULTICLASS and self.serving.default_score is not None:
            raise ConfigurationError(
                f"project {self.name} declares a default_score, which does not tell a class",
                fix="use the serving policies refuse and predict",
            )

    def _check_training(self) -> None:
        if self.calibration not in ("none", "sigmoid", "isotonic"):
            raise ConfigurationError(
                f"calibration {self.calibration!r} of project {self.name}",
                fix="use none, sigmoid or isotonic",
            )
        names = [segment.name for segment in self.slices]
        for segment in self.slices:
            if segment.feature not in self.view.features:
                raise ConfigurationError(
                    f"slice {segment.name} of project {self.name} is by {segment.feature}",
                    fix=f"use a feature of view {self.view.name}",
                )
            if not segment.minimum < segment.maximum or names.count(segment.name) > 1:
                raise ConfigurationError(
                    f"slice {segment.name} of project {self.name} is empty or declared twice"
                )
        if unknown := set(self.gate.slices or ()) - set(names):
            raise ConfigurationError(
                f"the gate of project {self.name} names undeclared slices: "
                f"{', '.join(sorted(unknown))}"
            )

    def _check_monitoring(self) -> None:
        columns = self.monitoring.columns
        for column in columns:
            if column.name not in self.view.features:
                raise ConfigurationError(
                    f"project {self.name} monitors {column.name}",
                    fix=f"use a feature of view {self.view.name}",
                )
        if len({column.name for column in columns}) < len(columns):
            raise ConfigurationError(f"project {self.name} monitors a feature twice")
        if all(self.monitoring.of(name).trend for name in self.view.features):
            raise ConfigurationError(
                f"every feature of project {self.name} is a trend",
                fix="leave one that can tell drift",
            )

    def table(self, name: str) -> Table:
        """The table of that name; raises ConfigurationError when there is none."""
        for table in self.tables:
            if table.name == name:
                return table
        raise ConfigurationError(f"project {self.name} declares no table {name}")

    @property
    def task(self) -> Task:
        """What kind of thing is predicted, by the label's column and classes."""
        return self.label.task(self.table(self.label.table).column(self.label.column))

    @property
    def key_type(self) -> ColumnType:
        """The join key's type among the features; TEXT and INTEGER can be served."""
        return self.table(self.view.table).column(self.entity.join_key).type

    @property
    def event_time(self) -> str:
        """The feature table's event-time column."""
        name = self.table(self.view.table).event_time
        assert name is not None, "checked when the project was made"
        return name


def load_project(name: str) -> Project:
    """The project that the module `NAME.project` declares as `PROJECT`.

    Raises:
        ConfigurationError: there is no such module, or it declares none.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} is not a project's name")
    try:
        module = import_module(f"{name}.project")
    except ModuleNotFoundError as error:
        if error.name not in (name, f"{name}.project"):
            raise
        raise ConfigurationError(
            f"no project {name!r} here", fix=f"it would be declared in {name}/project.py"
        ) from error
    project = getattr(module, "PROJECT", None)
    if not isinstance(project, Project):
        raise ConfigurationError(f"{name}/project.py declares no PROJECT")
    return project


def load_function(reference: str) -> Callable[..., Any]:
    """The function that `module:function` names.

    Raises:
        ConfigurationError: the reference is malformed or names nothing.
    """
    module, _, attribute = reference.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"{reference!r} names no function ({error})") from error
    if not callable(found):
        raise ConfigurationError(f"{reference!r} is not a function")
    return found  # type: ignore[no-any-return]  # getattr of a module is Any
