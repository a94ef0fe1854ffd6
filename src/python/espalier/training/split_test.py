from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from churn.project import PROJECT
from espalier.errors import BadData, CheckRefused
from espalier.policies import Search, Validation
from espalier.training import split as module
from espalier.training.split import rolling_origins, split_by_entity, split_by_time, split_rows
from espalier.training.testing_tasks import DIABETES, WINE

LABEL = PROJECT.label


def frame(*days: str, label: tuple[bool, ...] = (True, False)) -> pd.DataFrame:
    rows = [(pd.Timestamp(day, tz="UTC"), value) for day in days for value in label]
    return pd.DataFrame(rows, columns=["label_time", "label"])


def test_labels_younger_than_the_horizon_are_purged() -> None:
    split = split_by_time(
        frame("1997-03-31", "1997-12-30", "1997-12-31", "1998-01-01", "1998-02-28", "1998-03-31"),
        LABEL,
    )
    assert split.validation_time == date(1998, 3, 31)
    # 1997-12-31 is just 90 days older: its label looks at days up to and including 1998-03-31.
    assert split.train_times == (date(1997, 3, 31), date(1997, 12, 30), date(1997, 12, 31))
    assert set(split.validation["label_time"]) == {pd.Timestamp("1998-03-31", tz="UTC")}
    assert len(split.train) == 6
    assert len(split.validation) == 2


def test_no_day_is_seen_by_both_a_training_and_a_validation_label() -> None:
    days = [str(day.date()) for day in pd.date_range("1997-03-31", "1998-03-31", freq="D")]
    split = split_by_time(frame(*days), LABEL)
    last_seen_in_training = max(split.train_times) + LABEL.horizon
    first_seen_in_validation = split.validation_time + timedelta(days=1)
    assert last_seen_in_training < first_seen_in_validation


def test_too_few_months_say_which_batch_will_do() -> None:
    with pytest.raises(CheckRefused) as refused:
        split_by_time(frame("1997-03-31", "1997-05-31"), LABEL)
    assert "1997-03-31 to 1997-05-31" in str(refused.value)
    assert "as of 1997-09-27 or later" in str(refused.value)
    # With the labels of 1997-06-30, known on 1997-09-28, it does.
    assert split_by_time(frame("1997-03-31", "1997-06-30"), LABEL).train_times == (
        date(1997, 3, 31),
    )


def test_no_label_at_all_is_bad_data() -> None:
    with pytest.raises(BadData, match="no row of table labels"):
        split_by_time(frame(), LABEL)


@pytest.mark.parametrize("one_class", ["1997-03-31", "1998-03-31"])
def test_labels_of_one_class_are_bad_data(one_class: str) -> None:
    rows = frame("1997-03-31", "1998-03-31")
    rows.loc[rows["label_time"] == pd.Timestamp(one_class, tz="UTC"), "label"] = True
    with pytest.raises(BadData, match="all 2 labels"):
        split_by_time(rows, LABEL)


def test_rolling_origins_are_predicted_by_what_was_known_then() -> None:
    rows = frame("1997-03-31", "1997-04-30", "1997-06-29", "1997-07-29", "1997-08-31")
    folds = rolling_origins(rows, LABEL, 2)
    assert [fold.validation_time for fold in folds] == [date(1997, 7, 29), date(1997, 8, 31)]
    assert folds[0].train_times == (date(1997, 3, 31), date(1997, 4, 30))
    assert [fold.validation_time for fold in rolling_origins(rows, LABEL, 9)] == [
        date(1997, 6, 29), date(1997, 7, 29), date(1997, 8, 31)
    ]  # fmt: skip
    assert rolling_origins(frame("1997-03-31", "1997-06-28"), LABEL, 3) == []


def test_a_label_time_of_one_class_makes_no_fold() -> None:
    one_class = frame("1997-07-31", label=(True, True))
    rows = pd.concat([frame("1997-03-31", "1997-06-30"), one_class])
    folds = rolling_origins(rows, LABEL, 3)
    assert [fold.validation_time for fold in folds] == [date(1997, 6, 30)]


def snapshot(entities: int = 2000, *days: str) -> pd.DataFrame:
    """Every entity's label at each day."""
    days = days or ("1998-03-31",)
    return pd.DataFrame(
        {
            "user_id": [f"u{number:05}" for number in range(entities)] * len(days),
            "label_time": np.repeat(pd.to_datetime(days, utc=True), entities),
            "label": np.arange(entities * len(days)) % 3 == 0,
        }
    )


def by_entity(share: float = 0.25, folds: int = 3, seed: int = 7):
    validation = Validation(by="entity", share=share)
    return replace(PROJECT, validation=validation, seed=seed, search=Search(folds=folds))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_entities_are_cut_apart_by_the_share(share: float) -> None:
    rows = snapshot()
    split = split_rows(rows, by_entity(share))
    chosen, rest = set(split.validation["user_id"]), set(split.train["user_id"])
    assert not chosen & rest
    assert len(chosen) + len(rest) == len(rows)
    # Three standard deviations of a binomial draw.
    assert abs(len(chosen) / len(rows) - share) < 3 * np.sqrt(share * (1 - share) / len(rows))
    assert split.train_times == (split.validation_time,) == (date(1998, 3, 31),)


def test_an_entity_stays_on_its_side_when_others_come_and_rows_change_places() -> None:
    few, many = snapshot(500), snapshot(2000).sample(frac=1, random_state=0)
    chosen, later = (set(split_rows(f, by_entity()).validation["user_id"]) for f in (few, many))
    assert chosen == {key for key in later if key < "u00500"}
    other = set(split_rows(few, by_entity(seed=8)).validation["user_id"])
    assert other != chosen


def test_of_several_times_the_newest_validates_and_no_chosen_entity_is_trained_on() -> None:
    rows = snapshot(500, "1998-01-31", "1998-03-31")
    split = split_by_entity(rows, by_entity())
    assert set(split.validation["label_time"]) == {pd.Timestamp("1998-03-31", tz="UTC")}
    assert not set(split.validation["user_id"]) & set(split.train["user_id"])
    assert split.train_times == (date(1998, 1, 31), date(1998, 3, 31))


def test_folds_by_entity_predict_each_part_by_the_others() -> None:
    train = split_rows(snapshot(), by_entity()).train
    found = module.folds(train, by_entity(folds=4))
    assert len(found) == 4
    parts = [set(fold.validation["user_id"]) for fold in found]
    assert set.union(*parts) == set(train["user_id"])
    assert sum(map(len, parts)) == len(train)
    for fold, part in zip(found, parts, strict=True):
        assert set(fold.train["user_id"]) == set(train["user_id"]) - part
        assert 0.2 < len(part) / len(train) < 0.3
    # One is not enough to predict a part by the others.
    (alone,) = module.folds(train, by_entity(folds=1))
    assert 0.4 < len(alone.validation) / len(train) < 0.6


def test_too_few_entities_to_validate_on_are_told() -> None:
    with pytest.raises(CheckRefused, match="2 entities are too few"):
        split_rows(snapshot(2), by_entity(0.01))


def test_a_label_that_is_known_at_its_time_does_not_train_and_validate() -> None:
    label = replace(LABEL, horizon=timedelta(0))
    split = split_by_time(frame("1998-01-31", "1998-02-28"), label)
    assert split.train_times == (date(1998, 1, 31),)
    assert split.validation_time == date(1998, 2, 28)
    with pytest.raises(CheckRefused, match=r"Validation\(by=.entity"):
        split_by_time(frame("1998-02-28"), label)


def wines(*labels: str, times: int = 40) -> pd.DataFrame:
    names = np.array(labels * times, dtype=object)
    time = pd.Timestamp("2026-01-31", tz="UTC")
    return pd.DataFrame({"id": range(len(names)), "label_time": time, "label": names})


def test_class_names_become_places_once() -> None:
    split = split_rows(wines("class_2", "class_0", "class_1"), WINE)
    assert split.train["label"].dtype == np.int64
    both = pd.concat([split.train, split.validation]).sort_index()
    assert both["label"].tolist() == [2, 0, 1] * 40


def test_a_class_without_a_label_is_named() -> None:
    with pytest.raises(BadData, match="labels to train on is class_1"):
        split_rows(wines("class_0", "class_2"), WINE)


def test_a_class_may_be_named_by_any_text() -> None:
    wine = replace(WINE, label=replace(WINE.label, classes=("class_0", "{red}", "class_2")))
    with pytest.raises(BadData, match=r"none of the \d+ labels to train on is \{red\}"):
        split_rows(wines("class_0", "class_2"), wine)


def test_a_label_that_is_no_class_or_no_number_is_bad_data() -> None:
    with pytest.raises(BadData, match="40 of 160 labels are none of class_0, class_1, class_2"):
        split_rows(wines("class_0", "class_1", "class_2", "red"), WINE)
    numbers = wines("x").assign(label=[*range(39), np.inf])
    with pytest.raises(BadData, match="1 of 40 labels are no finite number"):
        split_rows(numbers, DIABETES)
    with pytest.raises(BadData, match=r"all \d+ labels to train on are 3.0"):
        split_rows(wines("x").assign(label=3.0), DIABETES)
