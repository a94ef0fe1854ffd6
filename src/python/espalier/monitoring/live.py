"""How good what was served turned out to be, once the labels are known."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import numpy.typing as npt

from espalier.features.columns import Array
from espalier.monitoring import live_rows, live_store
from espalier.monitoring.live_rows import Answers
from espalier.monitoring.performance import Bin, Live, Measured, Performance, ShadowComparison
from espalier.postgres.connect import connect
from espalier.project import Project, Task
from espalier.training import evaluate
from espalier.training.evaluate import bootstrap, interval

# Of labels that are true or false; of others all that the task has.
METRICS = ("roc_auc", "pr_auc", "brier", "calibration_error")
# Fewer answers than these say nothing, of labels of classes fewer beside the most frequent class.
MINIMUM_ANSWERS = 20
_BINS = 10
# A draw costs time with each row, and the interval of many rows needs fewer draws.
_MANY_ROWS, _DRAWS, _DRAWS_OF_MANY = 100_000, 1000, 200

# A metric's value, and its bootstrapped ones.
_Values = dict[str, tuple[float, npt.NDArray[np.float64]]]


def measure(project: Project, *, as_of: date, dsn: str) -> Live:
    """Measure the label times that became known by `as_of`, and store it.

    Those are the newest one, again at each run, and every one that was not measured yet or whose
    labels were revised since. What joins a prediction with a label is told in `live_rows`. Versions
    with too few answers at a label time are left out, see `MINIMUM_ANSWERS`, and metrics that these
    answers do not have, as the ROC-AUC without labels of some class.

    Metrics are those of `training.evaluate`; intervals are percentile bootstrap ones at the gate's
    confidence, over entities, so they tell chance in who was looked at, not change over time.

    Raises:
        ConfigurationError: nothing of the project was ingested yet.
        BadData: a label is of no declared class.
        DependencyUnreachable: PostgreSQL does not answer.
    """
    performances: list[Performance] = []
    comparisons: list[ShadowComparison] = []
    answered = 0
    with connect(dsn) as connection:
        times = live_rows.label_times(connection, project, as_of=as_of)
        done = live_store.measured(connection, project)
        newest = max(times, default=None)
        # As they are now: predictions of an older time do not change, its labels may.
        asked = {t: s for t, s in times.items() if t == newest or done.get(t) != s}
        for time in asked:
            found = live_rows.answers(connection, project, label_time=time, as_of=as_of)
            answered += sum(len(answers.labels) for answers in found)
            usable = [answers for answers in found if _enough(project, answers.labels)]
            performances += [_performance(project, time, answers) for answers in usable]
            comparisons += _comparisons(project, time, usable)
        nothing = "" if performances else _nothing(project, as_of, newest, answered)
        run_id = str(uuid.uuid4())
        measured = Live(run_id, tuple(performances), tuple(comparisons), nothing)
        live_store.store(connection, project, measured, asked)
    return measured


def _nothing(project: Project, as_of: date, newest: date | None, answered: int) -> str:
    if newest is None:
        return f"no label of {project.name} is known at {as_of}"
    if answered:
        few = "beside the most frequent class " if project.task is not Task.REGRESSION else ""
        return f"{answered} answers to labels of {newest} or before it, {few}too few to measure"
    if not project.label.horizon:
        return f"nothing was served of {newest} before its labels were known"
    return f"nothing was served in time for the labels of {newest}"


def _enough(project: Project, labels: Array) -> bool:
    if project.task is Task.REGRESSION:
        return len(labels) >= MINIMUM_ANSWERS
    most = np.bincount(labels.astype(np.int64)).max(initial=0)
    return bool(len(labels) - most >= MINIMUM_ANSWERS)


def _names(project: Project) -> tuple[str, ...]:
    if project.task is not Task.BINARY:
        return evaluate.metrics_of(project.task)
    # The action compares the gate's.
    return tuple(dict.fromkeys((*METRICS, project.gate.metric)))


def _values(project: Project, labels: Array, scores: Mapping[str, Array]) -> dict[str, _Values]:
    """By model each metric that all have, with its bootstrapped values on the same rows."""
    task, names, one = project.task, _names(project), np.ones(len(labels))
    points = {
        model: evaluate.evaluation(task, labels, values).metrics(one, names)
        for model, values in scores.items()
    }
    names = tuple(n for n in names if all(np.isfinite(point[n]) for point in points.values()))
    size = max(values.size for values in scores.values())
    drawn = bootstrap(
        labels,
        scores,
        names=names,
        seed=project.seed,
        draws=_DRAWS if size <= _MANY_ROWS else _DRAWS_OF_MANY,
        task=task,
    )
    return {model: {n: (points[model][n], drawn[model][n]) for n in names} for model in scores}


def _performance(project: Project, time: date, answers: Answers) -> Performance:
    values = _values(project, answers.labels, {"served": answers.scores})["served"]
    confidence = project.gate.confidence
    return Performance(
        label_time=time,
        model_version=answers.model_version,
        role="shadow" if answers.shadow else "champion",
        rows=len(answers.labels),
        positives=int(answers.labels.sum()) if project.task is Task.BINARY else None,
        unserved=answers.unserved,
        metrics={n: Measured(one, interval(d, confidence)) for n, (one, d) in values.items()},
        calibration=_calibration(answers),
    )


def _calibration(answers: Answers) -> tuple[Bin, ...]:
    scores, came_true = answers.scores, answers.labels
    if scores.ndim > 1:
        came_true = scores.argmax(axis=1) == came_true
        scores = scores.max(axis=1)
    order = np.argsort(scores, kind="stable")
    return tuple(
        Bin(len(part), float(scores[part].mean()), float(came_true[part].mean()))
        for part in np.array_split(order, min(_BINS, len(order)))
    )


def _comparisons(project: Project, time: date, found: Sequence[Answers]) -> list[ShadowComparison]:
    """Each shadow with each champion, where both answered enough of the same from one row."""
    pairs = []
    for shadow in (answers for answers in found if answers.shadow):
        for champion in (answers for answers in found if not answers.shadow):
            _, left, right = np.intersect1d(
                champion.entities, shadow.entities, assume_unique=True, return_indices=True
            )
            same = champion.feature_times[left] == shadow.feature_times[right]
            left, right = left[same], right[same]
            labels = champion.labels[left]
            if len(labels) and _enough(project, labels):
                scores = {"champion": champion.scores[left], "shadow": shadow.scores[right]}
                values = _values(project, labels, scores)
                before, after = values["champion"], values["shadow"]
                pairs.append(
                    ShadowComparison(
                        label_time=time,
                        champion=champion.model_version,
                        shadow=shadow.model_version,
                        rows=len(labels),
                        champion_metrics={n: value for n, (value, _) in before.items()},
                        shadow_metrics={n: value for n, (value, _) in after.items()},
                        differences={
                            name: Measured(
                                after[name][0] - before[name][0],
                                interval(after[name][1] - before[name][1], project.gate.confidence),
                            )
                            for name in before
                        },
                    )
                )
    return pairs
