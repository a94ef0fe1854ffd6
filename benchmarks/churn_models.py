"""How good the churn model is, beside what a practitioner would try first, on all of CDNOW.

    ./pants run benchmarks/churn_models.py
    ./pants run benchmarks/churn_models.py -- --sample     a tenth of the customers

CDNOW's log becomes batches, those are ingested into an own PostgreSQL, and every model gets the
same training rows and the same rows to predict: first those of training itself (the newest label
month), then each label month that has older ones to learn from (rolling origins). The model's
settings are chosen anew within each origin's training rows. BG/NBD needs no labels: it is fitted to
the customers' orders up to the day of prediction, as one would.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import bg_nbd
import measure
from churn import cdnow
from churn.cdnow_log import packaged_log, read_log
from churn.project import PROJECT
from espalier.features.point_in_time import training_set
from espalier.ingest.run import ingest
from espalier.postgres import embedded, migrate
from espalier.postgres.connect import connect
from espalier.training import evaluate, fitting
from espalier.training.binary import BinaryEvaluation
from espalier.training.evaluate import Floats
from espalier.training.search import search
from espalier.training.split import Split, rolling_origins, split_by_time

FEATURES = PROJECT.view.features
_AHEAD_WEEKS = PROJECT.label.horizon.days / 7
_RFM = ("recency_days", "orders_total", "avg_order_value")
_METRICS = ("roc_auc", "pr_auc", "brier", "log_loss", "calibration_error", "lift_10")
Model = Callable[[Split], Floats]


def champion(split: Split) -> Floats:
    """The product's estimator with settings chosen within the training rows."""
    found = search(PROJECT, split.train)
    model = fitting.fit(
        PROJECT, PROJECT.estimator, split.train, found.settings, PROJECT.calibration
    )
    return fitting.score(PROJECT, model, split.validation)


def recency(split: Split) -> Floats:
    """The product's baseline."""
    model = fitting.fit(PROJECT, PROJECT.baseline, split.train)
    return fitting.score(PROJECT, model, split.validation)


def rfm(split: Split) -> Floats:
    """Logistic regression on recency, frequency and monetary value."""
    columns = [FEATURES.index(name) for name in _RFM]
    model = make_pipeline(
        ColumnTransformer([("scale", StandardScaler(), columns)]),
        LogisticRegression(max_iter=1000),
    ).fit(fitting.matrix(split.train, FEATURES), fitting.target(split.train))
    return fitting.score(PROJECT, model, split.validation)


def bgnbd(split: Split) -> Floats:
    """BG/NBD's probability of no order within the horizon, without any label."""
    rows = split.validation
    x = rows["orders_total"].to_numpy(dtype=np.float64) - 1
    age = rows["tenure_days"].to_numpy(dtype=np.float64) / 7
    last = age - rows["recency_days"].to_numpy(dtype=np.float64) / 7
    return bg_nbd.fit(x, last, age).no_order(x, last, age, _AHEAD_WEEKS)


MODELS: Mapping[str, Model] = {
    "churn model": champion,
    "recency baseline": recency,
    "BG/NBD": bgnbd,
    "RFM logistic": rfm,
}
_BASELINE = "recency baseline"


@dataclass(frozen=True)
class Predicted:
    """One label month: the customers [n], their labels [n], and each model's scores [n]."""

    day: str
    customers: Sequence[str]
    labels: evaluate.Booleans
    scores: Mapping[str, Floats]


def predict(split: Split) -> Predicted:
    """Train every model on one split and score its validation rows."""
    rows = split.validation
    # One thread, as training does it.
    with threadpool_limits(1):
        scores = {name: model(split) for name, model in MODELS.items()}
    customers = rows[PROJECT.entity.join_key].tolist()
    return Predicted(str(split.validation_time), customers, fitting.target(rows), scores)


def drawn(months: Sequence[Predicted], draws: int) -> dict[str, dict[str, Floats]]:
    """By model and metric, the mean over the months in each bootstrap draw [draws].

    Customers are drawn, each with all of its months: rows of one customer are not independent. All
    models share the draws.
    """
    codes, customers = pd.factorize(np.concatenate([month.customers for month in months]))
    places = np.split(codes, np.cumsum([len(month.customers) for month in months])[:-1])
    ready = {
        name: [BinaryEvaluation(month.labels, month.scores[name]) for month in months]
        for name in MODELS
    }
    found = {name: {metric: np.empty(draws) for metric in _METRICS} for name in MODELS}
    generator = np.random.default_rng(PROJECT.seed)
    for draw in range(draws):
        chosen = generator.integers(0, len(customers), len(customers))
        counts = np.bincount(chosen, minlength=len(customers)).astype(np.float64)
        for name, evaluations in ready.items():
            values = [
                evaluation.metrics(counts[place], _METRICS)
                for evaluation, place in zip(evaluations, places, strict=True)
            ]
            for metric in _METRICS:
                found[name][metric][draw] = np.mean([value[metric] for value in values])
    return found


def table(months: Sequence[Predicted], draws: int) -> str:
    """Every model's metrics with intervals, and the difference of ROC-AUC to the baseline's."""
    resampled = drawn(months, draws)
    points = {
        name: {
            metric: float(
                np.mean([evaluate.metrics(m.labels, m.scores[name])[metric] for m in months])
            )
            for metric in _METRICS
        }
        for name in MODELS
    }
    lines = []
    for name in MODELS:
        cells = [
            f"{points[name][metric]:.4f} ({_ends(resampled[name][metric])})" for metric in _METRICS
        ]
        gain = points[name]["roc_auc"] - points[_BASELINE]["roc_auc"]
        ends = _ends(resampled[name]["roc_auc"] - resampled[_BASELINE]["roc_auc"], sign="+")
        cells.append("" if name == _BASELINE else f"{gain:+.4f} ({ends})")
        lines.append([name, *cells])
    return measure.markdown(["model", *_METRICS, "ROC-AUC gained"], lines)


def by_month(months: Sequence[Predicted]) -> str:
    """Each month's ROC-AUC."""
    lines = [
        [
            month.day,
            f"{len(month.labels):,}",
            f"{month.labels.mean():.1%}",
            *(
                f"{evaluate.metrics(month.labels, month.scores[name])['roc_auc']:.4f}"
                for name in MODELS
            ),
        ]
        for month in months
    ]
    return measure.markdown(["label month", "customers", "churned", *MODELS], lines)


def _ends(values: Floats, sign: str = "") -> str:
    interval = evaluate.interval(values)
    return f"{interval.low:{sign}.4f} to {interval.high:{sign}.4f}"


def labels(*, sample: bool) -> pd.DataFrame:
    """CDNOW through batches and a database: what training would see after the last batch."""
    with tempfile.TemporaryDirectory() as scratch, embedded.temporary() as server:
        data, reports = Path(scratch) / "data", Path(scratch) / "reports"
        cdnow.build(read_log(packaged_log(sample=sample)), data)
        with connect(server.dsn()) as connection:
            migrate.migrate(connection)
        days = [PROJECT.calendar.as_of(month) for month in range(cdnow.BATCH_COUNT)]
        for month, as_of in enumerate(days):
            ingest(
                PROJECT,
                source=data / f"month_{month:03}",
                as_of=as_of,
                dsn=server.dsn(),
                reports_dir=reports,
                who="benchmark",
            )
        with connect(server.dsn()) as connection:
            return training_set(connection, PROJECT, as_of=days[-1])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="compare churn models on CDNOW")
    parser.add_argument("--sample", action="store_true", help="the sample of a tenth")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws")
    asked = parser.parse_args()
    frame = labels(sample=asked.sample)
    split = split_by_time(frame, PROJECT.label)
    newest = predict(split)
    print(f"## Newest label month, {newest.day}\n")
    print(
        f"{len(split.train):,} rows of {split.train_times[0]} to {split.train_times[-1]} to train "
        f"on, {len(split.validation):,} customers to predict, {newest.labels.mean():.1%} churned; "
        "95 % intervals over customers, differences paired.\n"
    )
    print(table([newest], asked.draws))
    months = [predict(fold) for fold in rolling_origins(frame, PROJECT.label, cdnow.BATCH_COUNT)]
    print(f"\n## Mean over {len(months)} rolling origins\n")
    print(table(months, asked.draws))
    print(f"\n{by_month(months)}\n")
    print(measure.machine())


if __name__ == "__main__":
    main()
