from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import resampled

SOURCE = Path("data/seeds/churn")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return resampled.write(SOURCE, tmp_path_factory.mktemp("out"), seed=1)


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)


def test_the_same_keys_and_columns(folders):
    assert [folder.name for folder in folders] == [f"month_{n:03}" for n in range(13)]
    for folder in folders:
        for name, day in (("users", None), ("features", "feature_date"), ("labels", "label_date")):
            before, after = read(SOURCE / folder.name, name), read(folder, name)
            assert list(after) == list(before)
            key = ["user_id", *([day] if day else [])]
            pd.testing.assert_frame_equal(
                after[key].sort_values(key, ignore_index=True),
                before[key].sort_values(key, ignore_index=True),
            )


def test_features_and_label_are_of_one_customer_of_the_first_month(folders):
    values = list(read(SOURCE / "month_000", "features").columns[2:])

    def pairs(features: pd.DataFrame, labels: pd.DataFrame, day: str) -> pd.DataFrame:
        rows = features[features["feature_date"] == day].merge(
            labels.rename(columns={"label_date": "feature_date"}), on=["user_id", "feature_date"]
        )
        return rows[[*values, "label_value"]]

    first = read(SOURCE / "month_000", "features"), read(SOURCE / "month_000", "labels")
    there = set(map(tuple, pairs(*first, "1997-03-31").to_numpy()))
    # The label of 09-30 comes three batches after its features.
    drawn = pairs(read(folders[3], "features"), read(folders[6], "labels"), "1997-09-30")
    assert len(drawn) > 2000
    assert set(map(tuple, drawn.to_numpy())) <= there
    share = (drawn["label_value"].str.lower() == "true").mean()
    assert 0.75 < share < 0.81
    assert len(drawn.drop_duplicates()) < len(drawn) * 0.75, "drawn with replacement"


def test_a_seed_decides(folders, tmp_path):
    again = resampled.write(SOURCE, tmp_path / "again", seed=1)
    other = resampled.write(SOURCE, tmp_path / "other", seed=2)
    texts = [(f[4] / "features.csv").read_text() for f in (folders, again, other)]
    assert texts[0] == texts[1] != texts[2]
