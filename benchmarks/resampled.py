"""A replay in which nothing changes: every month's customers are a sample of the first month's.

For each feature day, each customer gets the features of a customer drawn from those of the first
feature day, and on that day's label file the label of the same one: features and labels keep
belonging together, and only chance tells the months apart. Files, keys and days are those of the
source, so ingest, training and the loop take them as they take the real ones.

    python resampled.py --source data/seeds/churn --out /tmp/resampled/churn
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd


def write(source: Path, out: Path, *, seed: int = 0) -> list[Path]:
    """Write `out`/month_000 and so on, as many as `source` has.

    Args:
        source: The folder of the real months.
        out: Made if needed; files in it are overwritten.
        seed: The same one gives the same files.

    Raises:
        FileNotFoundError: `source` has no month_000.
    """
    first = source / "month_000"
    # Texts as they are, so that a value is written as it was read.
    features = pd.read_csv(first / "features.csv", dtype=str, keep_default_na=False)
    labels = pd.read_csv(first / "labels.csv", dtype=str, keep_default_na=False)
    day = labels["label_date"].min()
    pool = features[features["feature_date"] == day].merge(
        labels.loc[labels["label_date"] == day, ["user_id", "label_value"]], on="user_id"
    )
    written = []
    for month in sorted(source.glob("month_*")):
        folder = out / month.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(month / "users.csv", folder / "users.csv")
        for name, column in (("features", "feature_date"), ("labels", "label_date")):
            rows = pd.read_csv(month / f"{name}.csv", dtype=str, keep_default_na=False)
            parts = [
                _drawn(pool, part, on, list(rows.columns), seed)
                for on, part in rows.groupby(column, sort=True)
            ]
            new = pd.concat(parts) if parts else rows
            new.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        written.append(folder)
    return written


def _drawn(
    pool: pd.DataFrame, rows: pd.DataFrame, day: object, columns: list[str], seed: int
) -> pd.DataFrame:
    """The rows with the values of drawn customers; the same draw for features and labels of a day.

    A draw depends on the customer and the day alone, as a label comes months after its features.
    """
    ordinal = pd.Timestamp(str(day)).toordinal()
    numbers = pd.to_numeric(rows["user_id"]).to_numpy()
    drawn = np.random.default_rng([seed, ordinal]).integers(0, len(pool), int(numbers.max()) + 1)
    new: pd.DataFrame = pool.iloc[drawn[numbers]].reset_index(drop=True)
    new["user_id"] = rows["user_id"].to_numpy()
    new["feature_date"] = new["label_date"] = str(day)
    chosen: pd.DataFrame = new[columns]
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--source", type=Path, required=True, help="the folder with month_000 ...")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for folder in write(options.source, options.out, seed=options.seed):
        print(folder)


if __name__ == "__main__":
    main()
