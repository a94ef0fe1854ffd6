"""CDNOW's months through the drift check: it must see the real drift, and none where there is none.

In the real months customers stop buying: the share of labels that are positive rises. In the other
replay each month is a new sample of the first month's customers, with their features and labels of
that month, so nothing changes but chance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from churn.project import PROJECT
from espalier.monitoring import sketch, windows
from espalier.monitoring.drift import rules
from espalier.monitoring.evidently_adapter import compare
from espalier.monitoring.target import Labels
from espalier.policies import ColumnMonitoring, Monitoring
from espalier.project import Project

SEEDS = Path("data/seeds/churn")
HORIZON = PROJECT.label.horizon


@pytest.fixture(scope="module")
def months() -> dict[date, pd.DataFrame]:
    """Features and label (NaN: unknown) by month."""
    features, labels = (
        pd.concat([pd.read_csv(path) for path in sorted(SEEDS.glob(f"*/{name}.csv"))])
        for name in ("features", "labels")
    )
    labels["positive"] = labels["label_value"].astype(str).str.lower().eq("true")
    rows = features.merge(
        labels.rename(columns={"label_date": "feature_date"}).drop(columns="label_value"),
        on=["user_id", "feature_date"],
        how="left",
    )
    return {
        date.fromisoformat(str(day)): month.reset_index(drop=True)
        for day, month in rows.groupby("feature_date")
    }


@dataclass(frozen=True)
class Month:
    as_of: date
    window: bool
    verdict: bool
    trained: bool
    trending: tuple[str, ...]


def replayed(months: dict[date, pd.DataFrame], project: Project = PROJECT) -> list[Month]:
    """Check each month, training anew whenever the verdict asks and newer labels allow it."""
    days = sorted(months)
    seen: list[windows.Window] = []
    champion: list[date] = []
    told = []
    for today in days:
        known = [day for day in days if day + HORIZON <= today]
        trainable = [day for day in known if day + HORIZON <= known[-1]]
        if not trainable:
            continue
        champion = champion or trainable
        before = pd.concat([months[day] for day in champion])
        labels = (counted(before), counted(months[known[-1]]))
        found = compare(
            sketch.of_frame(before, project.view.features),
            sketch.of_frame(months[today], project.view.features),
            rules=rules(project),
            labels=labels if known[-1] > champion[-1] else None,
            target_threshold=project.monitoring.target_threshold,
        )
        judged = windows.judge(found, project, as_of=today, before=seen)
        seen.append(windows.Window(today, judged.drifted))
        trains = judged.decision.verdict and trainable[-1] > champion[-1]
        told.append(Month(today, judged.drifted, judged.decision.verdict, trains, judged.trending))
        if trains:
            champion, seen = trainable, []
    return told


def counted(rows: pd.DataFrame) -> Labels:
    return Labels(rows=len(rows), positives=int(rows["positive"].astype(bool).sum()))


def resampled(months: dict[date, pd.DataFrame], seed: int) -> dict[date, pd.DataFrame]:
    """Every month a bootstrap sample of the first one's rows, features and label together."""
    random = np.random.default_rng(seed)
    first = months[min(months)]
    return {day: first.iloc[random.integers(0, len(first), len(first))] for day in months}


def test_the_real_months_drift(months: dict[date, pd.DataFrame]) -> None:
    told = replayed(months)
    assert [month.as_of for month in told][:2] == [date(1997, 9, 30), date(1997, 10, 31)]
    # One month alone is not enough for the verdict.
    assert told[0].window
    assert not told[0].verdict
    assert told[1].verdict
    assert sum(month.trained for month in told) >= 3
    assert not all(month.verdict for month in told)
    assert set(told[-1].trending) == {c.name for c in PROJECT.monitoring.columns}


@pytest.mark.parametrize("seed", [1, 2])
def test_samples_of_the_first_month_do_not(months: dict[date, pd.DataFrame], seed: int) -> None:
    told = replayed(resampled(months, seed))
    assert len(told) == 10
    assert not [month for month in told if month.window]


def test_growth_by_construction_alone_is_no_drift(months: dict[date, pd.DataFrame]) -> None:
    """The first month again and again, with each customer a month older each time."""
    first = months[min(months)]
    aged = {}
    for number, day in enumerate(sorted(months)):
        month = resampled(months, number)[day].copy()
        for name in ("recency_days", "tenure_days"):
            month[name] += 30 * number
        month["orders_total"] += number
        month["cds_total"] += 2 * number
        month["spend_total"] += 30.0 * number
        month["mean_gap_days"] += 5.0 * number
        aged[day] = month
    told = replayed(aged)
    assert not [month for month in told if month.window]
    assert len(told[-1].trending) == 6
    # Were they counted, it would say drift every month: that is what trends are declared for.
    plain = replace(PROJECT, monitoring=replace(PROJECT.monitoring, columns=()))
    assert all(month.window for month in replayed(aged, plain))
    assert first["tenure_days"].max() < aged[max(aged)]["tenure_days"].min()


def test_the_label_alone_is_enough(months: dict[date, pd.DataFrame]) -> None:
    """With features that stand still, the real labels' way from 22 to 14 of 100 who buy again."""
    still = resampled(months, 1)
    for day, month in months.items():
        if month["positive"].notna().all():
            share = month["positive"].astype(bool).mean()
            rows = still[day].copy()
            rows["positive"] = np.arange(len(rows)) < share * len(rows)
            still[day] = rows
    told = replayed(still)
    assert told[-1].window or told[-2].window
    assert any(month.verdict for month in told)
    assert not told[0].window


def test_a_declaration_must_fit() -> None:
    with pytest.raises(Exception, match="churn monitors nothing_such"):
        replace(PROJECT, monitoring=Monitoring(columns=(ColumnMonitoring(name="nothing_such"),)))
    with pytest.raises(Exception, match="drift method 'chi'"):
        Monitoring(method="chi")
    with pytest.raises(Exception, match="drift in 4 of 3 windows"):
        Monitoring(windows_k=4)
    assert timedelta(0) < PROJECT.monitoring.served_within <= timedelta(days=28)
