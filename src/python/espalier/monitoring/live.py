"""How good what was served turned out to be, once the labels are known."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt

from espalier.monitoring import live_rows
from espalier.monitoring.live_rows import Answers
from espalier.postgres.connect import Connection, connect
from espalier.project import Project
from espalier.training.evaluate import Interval, bootstrap, interval, metrics

METRICS = ("roc_auc", "pr_auc", "brier", "calibration_error")
# Fewer answers than these of either class say nothing.
MINIMUM_ANSWERS = 20
_BINS = 10
# A draw costs time with each row, and the interval of many rows needs fewer draws.
_MANY_ROWS, _DRAWS, _DRAWS_OF_MANY = 100_000, 1000, 200


@dataclass(frozen=True)
class Measured:
    """A metric's value and its bootstrap interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Bin:
    """A group of answers of about equal scores."""

    rows: int
    mean_score: float
    positive_share: float


@dataclass(frozen=True, kw_only=True)
class Performance:
    """One version in one role against the labels of one time.

    `rows` labels were answered, `positives` of them positive; for `unserved` this version served
    nothing in time.
    """

    label_time: date
    model_version: str
    role: str
    rows: int
    positives: int
    unserved: int
    metrics: dict[str, Measured]
    calibration: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True)
class ShadowComparison:
    """A champion and a shadow on the same rows; `differences` are shadow less champion, paired."""

    label_time: date
    champion: str
    shadow: str
    rows: int
    champion_metrics: dict[str, float]
    shadow_metrics: dict[str, float]
    differences: dict[str, Measured]


@dataclass(frozen=True)
class Live:
    """What a run measured, oldest label time first."""

    run_id: str
    performances: tuple[Performance, ...]
    comparisons: tuple[ShadowComparison, ...]

    @property
    def newest(self) -> Performance | None:
        """The champion role's measurement of the newest label time with the most answers."""
        champions = [p for p in self.performances if p.role == "champion"]
        return max(champions, key=lambda p: (p.label_time, p.rows), default=None)


def measure(project: Project, *, as_of: date, dsn: str) -> Live:
    """Measure the label times that became known by `as_of`, and store it.

    Those are the newest one, again at each run, and every one that was not measured yet or whose
    labels were revised since. What joins a prediction with a label is told in `live_rows`. Versions
    with fewer than `MINIMUM_ANSWERS` of either class at a label time are left out.

    Metrics are those of `training.evaluate`; intervals are percentile bootstrap ones at the gate's
    confidence, over entities, so they tell chance in who was looked at, not change over time.

    Raises:
        ConfigurationError: nothing of the project was ingested yet.
        DependencyUnreachable: PostgreSQL does not answer.
    """
    performances: list[Performance] = []
    comparisons: list[ShadowComparison] = []
    with connect(dsn) as connection:
        times = live_rows.label_times(connection, project, as_of=as_of)
        done = _measured(connection, project)
        newest = max(times, default=None)
        # As they are now: predictions of an older time do not change, its labels may.
        asked = {t: s for t, s in times.items() if t == newest or done.get(t) != s}
        for time in asked:
            found = live_rows.answers(connection, project, label_time=time, as_of=as_of)
            usable = [answers for answers in found if _enough(answers.labels)]
            performances += [_performance(project, time, answers) for answers in usable]
            comparisons += _comparisons(project, time, usable)
        measured = Live(str(uuid.uuid4()), tuple(performances), tuple(comparisons))
        _store(connection, project, measured, asked)
    return measured


def _enough(labels: npt.NDArray[np.bool_]) -> bool:
    positives = int(labels.sum())
    return min(positives, len(labels) - positives) >= MINIMUM_ANSWERS


def _draws(rows: int) -> int:
    return _DRAWS if rows <= _MANY_ROWS else _DRAWS_OF_MANY


def _performance(project: Project, time: date, answers: Answers) -> Performance:
    values = metrics(answers.labels, answers.scores)
    drawn = bootstrap(
        answers.labels,
        {"served": answers.scores},
        names=METRICS,
        seed=project.seed,
        draws=_draws(len(answers.labels)),
    )["served"]
    confidence = project.gate.confidence
    return Performance(
        label_time=time,
        model_version=answers.model_version,
        role="shadow" if answers.shadow else "champion",
        rows=len(answers.labels),
        positives=int(answers.labels.sum()),
        unserved=answers.unserved,
        metrics={n: Measured(values[n], interval(drawn[n], confidence)) for n in METRICS},
        calibration=_calibration(answers),
    )


def _calibration(answers: Answers) -> tuple[Bin, ...]:
    order = np.argsort(answers.scores, kind="stable")
    return tuple(
        Bin(len(part), float(answers.scores[part].mean()), float(answers.labels[part].mean()))
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
            if len(labels) and _enough(labels):
                scores = {"champion": champion.scores[left], "shadow": shadow.scores[right]}
                drawn = bootstrap(
                    labels, scores, names=METRICS, seed=project.seed, draws=_draws(len(labels))
                )
                values = {role: metrics(labels, one) for role, one in scores.items()}
                pairs.append(
                    ShadowComparison(
                        label_time=time,
                        champion=champion.model_version,
                        shadow=shadow.model_version,
                        rows=len(labels),
                        champion_metrics={n: values["champion"][n] for n in METRICS},
                        shadow_metrics={n: values["shadow"][n] for n in METRICS},
                        differences={
                            name: Measured(
                                values["shadow"][name] - values["champion"][name],
                                interval(
                                    drawn["shadow"][name] - drawn["champion"][name],
                                    project.gate.confidence,
                                ),
                            )
                            for name in METRICS
                        },
                    )
                )
    return pairs


def _measured(connection: Connection, project: Project) -> dict[date, int | None]:
    """The label times that were measured, and the newest snapshot of the labels they had then."""
    rows = connection.execute(
        "SELECT DISTINCT ON (label_time) label_time, labels_snapshot "
        "FROM espalier.live_performance WHERE project = %s ORDER BY label_time, id DESC",
        [project.name],
    ).fetchall()
    return dict(rows)


def _store(
    connection: Connection,
    project: Project,
    found: Live,
    snapshots: Mapping[date, int],
) -> None:
    run_id = found.run_id
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO espalier.live_performance (run_id, project, label_time, model_version, "
            "role, metric, value, low, high, rows, positives, unserved, labels_snapshot) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    *(run_id, project.name, one.label_time, one.model_version, one.role, name),
                    *(measured.value, measured.interval.low, measured.interval.high),
                    *(one.rows, one.positives, one.unserved, snapshots[one.label_time]),
                )
                for one in found.performances
                for name, measured in one.metrics.items()
            ],
        )
        cursor.executemany(
            "INSERT INTO espalier.live_calibration (run_id, project, label_time, model_version, "
            "role, bin, rows, mean_score, positive_share) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    *(run_id, project.name, one.label_time, one.model_version, one.role, number),
                    *(group.rows, group.mean_score, group.positive_share),
                )
                for one in found.performances
                for number, group in enumerate(one.calibration)
            ],
        )
        cursor.executemany(
            "INSERT INTO espalier.live_comparison (run_id, project, label_time, champion, shadow, "
            "metric, champion_value, shadow_value, difference, low, high, rows) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    *(run_id, project.name, one.label_time, one.champion, one.shadow, name),
                    *(one.champion_metrics[name], one.shadow_metrics[name]),
                    *(gained.value, gained.interval.low, gained.interval.high, one.rows),
                )
                for one in found.comparisons
                for name, gained in one.differences.items()
            ],
        )
