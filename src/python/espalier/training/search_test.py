from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from churn.project import PROJECT
from espalier.errors import ConfigurationError
from espalier.policies import Gate, Search
from espalier.training import search as module
from espalier.training import testing_tasks
from espalier.training.search import combinations, search
from espalier.training.split import split_rows
from espalier.training.testing_tasks import WINE

FEATURES = PROJECT.view.features
MONTHS = pd.date_range("1997-01-31", periods=8, freq="ME", tz="UTC")


def frame(entities: int = 300, months: int = 8) -> pd.DataFrame:
    """Churn depends on the product of two features, which needs interactions to be seen."""
    generator = np.random.default_rng(0)
    count = entities * months
    rows = pd.DataFrame({name: generator.normal(50, 10, count) for name in FEATURES})
    product = (rows["recency_days"] - 50) * (rows["spend_90d"] - 50) / 100
    rows["label"] = generator.random(count) < 1 / (1 + np.exp(-2 * product))
    rows["user_id"] = np.tile([f"u{i:04}" for i in range(entities)], months)
    rows["label_time"] = np.repeat(MONTHS[:months], entities)
    return rows


def test_the_settings_that_predict_later_months_best_are_chosen() -> None:
    project = replace(PROJECT, search=Search(space=(("interactions", (False, True)),), folds=2))
    found = search(project, frame())
    assert found.settings == {"interactions": True}
    plain, better = found.trials
    assert better.mean > plain.mean + 0.2
    assert better.mean == pytest.approx(np.mean([f.metrics["roc_auc"] for f in better.folds]))
    assert [fold.time for fold in better.folds] == [day.date() for day in MONTHS[-2:]]
    assert [fold.time for fold in found.baseline.folds] == [fold.time for fold in better.folds]
    assert (found.rows, found.of) == (2400, 2400)
    again = search(project, frame())
    assert again == found
    told = json.loads(json.dumps(found.evidence(), allow_nan=False))
    assert told["trials"][1]["settings"] == {"interactions": True}


def test_without_a_later_month_the_defaults_are_taken() -> None:
    found = search(PROJECT, frame(months=2))
    assert found.settings == {"interactions": False}
    assert found.trials[0].folds == ()
    assert json.loads(json.dumps(found.evidence(), allow_nan=False))["trials"][0]["mean"] is None


def test_many_rows_are_searched_by_a_part_of_the_entities(monkeypatch) -> None:
    monkeypatch.setattr(module, "_ROWS", 800)
    rows = frame()
    found = search(replace(PROJECT, search=Search()), rows)
    assert found.rows == 800
    assert found.of == 2400
    part = module._part(PROJECT, rows)  # whole entities take part
    assert part.groupby("user_id").size().eq(8).all()


def test_combinations_begin_with_the_defaults_and_are_no_more_than_the_trials() -> None:
    space = (("a", (1, 2, 3)), ("b", ("x", "y")))
    every = combinations(Search(space=space, trials=6), seed=0)
    assert len(every) == 6
    assert every[0] == {"a": 1, "b": "x"}
    some = combinations(Search(space=space, trials=3), seed=0)
    assert some[0] == {"a": 1, "b": "x"}
    assert len(some) == 3
    assert all(one in every for one in some)
    assert some == combinations(Search(space=space, trials=3), seed=0)
    seeds = [combinations(Search(space=space, trials=3), seed=seed) for seed in range(5)]
    assert any(other != some for other in seeds)
    assert combinations(Search(), seed=0) == [{}]


@pytest.mark.parametrize("space", [(("seed", (1,)),), (("c", ()),)])
def test_a_space_that_leaves_no_choice_is_refused(space) -> None:
    with pytest.raises(ConfigurationError, match="search space"):
        Search(space=space)


def test_by_entity_the_parts_are_predicted_by_each_other_and_a_loss_is_to_be_low() -> None:
    rows = split_rows(testing_tasks.frame(WINE), WINE).train
    space = (("c", (1e-4, 1.0)),)
    project = replace(WINE, search=Search(space=space, folds=2), gate=Gate(metric="log_loss"))
    found = search(project, rows)
    assert found.settings == {"c": 1.0}
    assert sum(fold.rows for fold in found.trials[0].folds) == len(rows)
    flat, better = found.trials
    assert better.mean < flat.mean / 2
    assert found.baseline.mean == pytest.approx(np.log(3), abs=0.1)
    # Of the same settings a higher value is better by the accuracy.
    by_share = replace(project, gate=Gate(metric="accuracy"))
    assert search(by_share, rows).trials[1].mean > 0.9
