from __future__ import annotations

from datetime import date, timedelta

import pandas as pd
import pytest

from churn.project import PROJECT
from espalier.errors import BadData, CheckRefused
from espalier.training.split import rolling_origins, split_by_time

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
