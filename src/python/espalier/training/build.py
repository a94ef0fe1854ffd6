"""Trains a project's model and baseline on one split: no database, no registry, no clock.

The same rows, seed and libraries give the same bytes, so that a version can be made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from espalier.policies import Setting
from espalier.project import Project, Task
from espalier.training import evaluate, fitting, served
from espalier.training.binary import decision_metrics
from espalier.training.evaluate import Floats
from espalier.training.search import Found, search
from espalier.training.served import ServedModel
from espalier.training.split import Split


@dataclass(frozen=True)
class Built:
    """A trained model: its settings, file, threshold, and its scores of the validation rows.

    `scores` are by the served file; `baseline_scores` are the baseline's on the same rows. They are
    [n], of several classes [n, k].
    """

    estimator: Any
    search: Found
    served: ServedModel
    scores: Floats
    baseline_scores: Floats
    threshold: float
    metrics: Mapping[str, float]

    @property
    def settings(self) -> Mapping[str, Setting]:
        """What the estimator was built with, beside the seed."""
        return self.search.settings


def build(project: Project, split: Split) -> Built:
    """Choose settings, fit, calibrate, convert, choose the threshold, and measure.

    Raises:
        ConfigurationError: the project names functions that do not exist or take no such setting.
        CheckRefused: there are too few entities, or the estimator can be kept in no format.
    """
    # One thread: sums are then made in one order whatever the machine's number of cores, so that
    # the same rows give the same bytes there; and threads of small sums mostly wait for each other.
    with threadpool_limits(1):
        return _build(project, split)


def _build(project: Project, split: Split) -> Built:
    features = project.view.features
    found = search(project, split.train)
    estimator = fitting.fit(
        project, project.estimator, split.train, found.settings, project.calibration
    )
    baseline = fitting.fit(project, project.baseline, split.train)
    rows = fitting.matrix(split.validation, features)
    file = served.make(estimator, rows, name=project.name, seed=project.seed)
    scores = served.open_score(file.file, file.content)(rows)
    baseline_scores = fitting.score(project, baseline, split.validation)
    threshold = fitting.choose_threshold(project, split.train, found.settings)
    return Built(
        estimator=estimator,
        search=found,
        served=file,
        scores=scores,
        baseline_scores=baseline_scores,
        threshold=threshold,
        metrics=measure(project, split, scores, baseline_scores, threshold),
    )


def measure(
    project: Project, split: Split, scores: Floats, baseline: Floats, threshold: float
) -> dict[str, float]:
    """All metrics on the validation rows, by name.

    `<metric>` with the ends of its interval as `<metric>_low` and `<metric>_high`,
    `baseline_<metric>`, how much better the main metric is than the baseline's with its interval,
    and those of the decision between two classes. The interval is the 95 % percentile interval of 1,000 bootstrap draws of
    rows, each row being another entity; difference and values share the draws.
    """
    labels, task = fitting.target(split.validation), project.task
    by_model = {"model": scores, "baseline": baseline}
    found = evaluate.metrics(labels, scores, task=task)
    names = evaluate.metrics_of(task)
    drawn = evaluate.bootstrap(
        labels, {"model": scores}, names=names, seed=project.seed, task=task
    )["model"]
    for name, values in drawn.items():
        found |= _interval(name, values)
    for name, value in evaluate.metrics(labels, baseline, task=task).items():
        found[f"baseline_{name}"] = value
    main = project.gate.metric
    pair = evaluate.bootstrap(labels, by_model, names=[main], seed=project.seed, task=task)
    found[f"gain_{main}"] = evaluate.gain(main, found[main], found[f"baseline_{main}"])
    gains = evaluate.gain(main, pair["model"][main], pair["baseline"][main])
    found |= _interval(f"gain_{main}", gains)
    if task is Task.BINARY:
        found |= decision_metrics(labels, scores, threshold)
    return found


def _interval(name: str, values: Floats) -> dict[str, float]:
    ends = asdict(evaluate.interval(values))
    return {f"{name}_{end}": value for end, value in ends.items()}
