"""Chooses the estimator's settings by cross-validation within the training rows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from espalier.policies import Search, Setting
from espalier.project import Project
from espalier.training import evaluate, fitting
from espalier.training.split import folds

# Enough to tell settings apart; more rows would make the search the longest part of a training.
_ROWS = 60_000


@dataclass(frozen=True)
class Fold:
    """One validated label time, or part of its entities: its rows and the scores' metrics."""

    time: date
    rows: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Trial:
    """Settings, how they did in each fold, and the mean of the gate's metric over the folds."""

    settings: Mapping[str, Setting]
    folds: tuple[Fold, ...]
    mean: float


@dataclass(frozen=True)
class Found:
    """The settings to train with, all trials, and the baseline on the same folds.

    `rows` of `of` training rows took part.
    """

    settings: Mapping[str, Setting]
    trials: tuple[Trial, ...]
    baseline: Trial
    rows: int
    of: int

    def evidence(self) -> dict[str, Any]:
        """All of it as JSON values."""
        values: dict[str, Any] = asdict(self)
        for trial in (*values["trials"], values["baseline"]):
            for fold in trial["folds"]:
                fold["time"] = fold["time"].isoformat()
            # JSON has no NaN: without folds there is no mean.
            trial["mean"] = trial["mean"] if trial["folds"] else None
        return values


def search(project: Project, rows: pd.DataFrame) -> Found:
    """The settings with the best mean of the gate's metric over the folds; of equals the first.

    Without folds, when the training rows span less than the horizon, these are the defaults. Of
    more than 60,000 rows a seeded part of the entities takes part.

    Args:
        project: Its `search` says what is tried.
        rows: The training rows, without those that validate the model.

    Raises:
        ConfigurationError: the estimator's function does not take a setting.
    """
    part = _part(project, rows)
    parts = folds(part, project)

    def run(reference: str, settings: Mapping[str, Setting]) -> Trial:
        done = []
        for fold in parts:
            estimator = fitting.fit(project, reference, fold.train, settings)
            scores = fitting.score(project, estimator, fold.validation)
            found = evaluate.metrics(fitting.target(fold.validation), scores, task=project.task)
            done.append(Fold(fold.validation_time, len(fold.validation), found))
        values = [fold.metrics[project.gate.metric] for fold in done]
        return Trial(settings, tuple(done), float(np.mean(values)) if values else float("nan"))

    wanted = combinations(project.search, project.seed)
    trials = tuple(run(project.estimator, settings) for settings in wanted)
    best = trials[0]
    for trial in trials[1:] if parts else ():
        if evaluate.gain(project.gate.metric, trial.mean, best.mean) > 0:
            best = trial
    return Found(best.settings, trials, run(project.baseline, {}), len(part), len(rows))


def combinations(search: Search, seed: int) -> list[dict[str, Setting]]:
    """The settings to try, the defaults first; at most `search.trials` of all combinations."""
    names = [name for name, _ in search.space]
    values = [values for _, values in search.space]
    every = [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*values)]
    if len(every) <= search.trials:
        return every
    drawn = np.random.default_rng(seed).permutation(len(every) - 1)[: search.trials - 1] + 1
    return [every[0], *(every[place] for place in sorted(drawn.tolist()))]


def _part(project: Project, rows: pd.DataFrame) -> pd.DataFrame:
    if len(rows) <= _ROWS:
        return rows
    codes, entities = pd.factorize(rows[project.entity.join_key], sort=True)
    kept = max(1, int(len(entities) * _ROWS / len(rows)))
    shuffled = np.random.default_rng(project.seed).permutation(len(entities))
    return rows[shuffled[codes] < kept]
