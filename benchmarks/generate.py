"""Large batches of the churn product's shape, from a seed, in memory that does not grow.

Customers buy as in the Pareto/NBD model that was fitted to CDNOW's log (Fader, Hardie and Lee,
"RFM and CLV", Journal of Marketing Research 42, 2005): each has a rate of orders and a rate of
leaving for good, both drawn from gamma distributions, and spends by a gamma-gamma model. Like
CDNOW's cohort, all come in the first quarter of 1997, so the first batch holds four feature rows
and one label of each, every later one a feature row and as a rule a label.

    python generate.py --customers 250000 --months 1 --out /tmp/batches

The first customers are the same at any number of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from churn.cdnow import BATCHES, FEATURE_MONTHS, HORIZON

Format = Literal["csv", "csv.gz", "parquet"]
Integers = npt.NDArray[np.int64]

CHUNK = 20_000
_START = date(1997, 1, 1)
# A customer's first order comes in the first twelve weeks.
_ACQUISITION_DAYS = 84
# Pareto/NBD for CDNOW, in weeks: shape and rate of the order rate and of the leaving rate.
_ORDER_SHAPE, _ORDER_RATE = 0.553, 10.578
_LEAVE_SHAPE, _LEAVE_RATE = 0.606, 11.669
# Gamma-gamma for CDNOW: shape of an order's value, shape and rate of a customer's scale of it.
_VALUE_SHAPE, _SCALE_SHAPE, _SCALE_RATE = 6.25, 3.74, 15.44
_CENTS_A_CD = 1_400
_CENTS_LIMIT = 1_000_000
_WINDOWS = 90


@dataclass(frozen=True)
class Orders:
    """The orders of one chunk of customers, by customer and day, at most one of both.

    `customer` counts from 0 within the chunk, `day` from 1997-01-01; each customer has at least
    one. `first_number` is the number of customer 0 among all.
    """

    first_number: int
    customers: int
    customer: Integers
    day: Integers
    cds: Integers
    cents: Integers


@dataclass(frozen=True)
class Written:
    """One batch's folder and its rows by table."""

    folder: Path
    as_of: date
    rows: dict[str, int]


def write_batches(
    folder: Path, *, customers: int, months: int, seed: int = 0, file_format: Format = "csv"
) -> list[Written]:
    """Write `folder`/month_000 and so on, a table a file, as `churn.cdnow` does for the real log.

    Memory grows with the number of months alone, whose files are open at once.

    Args:
        folder: Made if needed; files in it are overwritten.
        customers: How many there are, all from the first batch on.
        months: How many batches, the first known on 1997-06-30.
        seed: The same one gives the same bytes.
        file_format: Of every file.
    """
    if customers < 1 or months < 1:
        raise ValueError("a batch needs a customer and a month")
    end = (BATCHES.as_of(months - 1) - _START).days
    with ExitStack() as stack:
        batches = [_Batch(folder, month, file_format, stack) for month in range(months)]
        for orders in chunks(customers=customers, days=end + 1, seed=seed):
            users = users_of(orders)
            for batch in batches:
                batch.write(orders, users)
    return [Written(batch.folder, batch.as_of, batch.rows) for batch in batches]


def chunks(*, customers: int, days: int, seed: int) -> Iterator[Orders]:
    """The orders of all customers in `days` days from 1997-01-01, a chunk of customers at a time."""
    for number, first in enumerate(range(0, customers, CHUNK)):
        random = np.random.default_rng([seed, number])
        yield _draw(random, first, min(CHUNK, customers - first), days)


def _draw(random: np.random.Generator, first_number: int, customers: int, days: int) -> Orders:
    # A whole chunk is drawn, so that its first customers do not depend on how many are wanted.
    first_day = random.integers(0, _ACQUISITION_DAYS, CHUNK)
    rate = random.gamma(_ORDER_SHAPE, 1 / (7 * _ORDER_RATE), CHUNK)
    leaving = random.gamma(_LEAVE_SHAPE, 1 / (7 * _LEAVE_RATE), CHUNK)
    lifetime = random.exponential(1 / np.maximum(leaving, 1e-9))
    active = np.minimum(lifetime, np.maximum(days - first_day, 0))
    scale = 1 / random.gamma(_SCALE_SHAPE, 1 / _SCALE_RATE, CHUNK)
    repeats = random.poisson(rate * active)
    customer = np.concatenate([np.arange(CHUNK), np.repeat(np.arange(CHUNK), repeats)])
    offset = np.concatenate(
        [np.zeros(CHUNK), random.random(int(repeats.sum())) * np.repeat(active, repeats)]
    )
    day = np.minimum(first_day[customer] + offset.astype(np.int64), days - 1)
    value = random.gamma(_VALUE_SHAPE, 1.0, len(customer)) * scale[customer] * 100
    cents = np.clip(value.astype(np.int64), 100, _CENTS_LIMIT)
    cds = 1 + cents // _CENTS_A_CD

    keep = customer < customers
    key = customer[keep] * days + day[keep]
    order = np.argsort(key, kind="stable")
    unique, starts = np.unique(key[order], return_index=True)
    return Orders(
        first_number=first_number,
        customers=customers,
        customer=unique // days,
        day=unique % days,
        cds=np.add.reduceat(cds[keep][order], starts),
        cents=np.add.reduceat(cents[keep][order], starts),
    )


def users_of(orders: Orders) -> pa.RecordBatch:
    """The rows of the users table."""
    first = np.searchsorted(orders.customer, np.arange(orders.customers))
    day = _dates(orders.day[first])
    return pa.RecordBatch.from_arrays(
        [
            _user_ids(orders),
            day,
            pc.strftime(day, "%G-W%V"),
            pa.array(orders.cds[first]),
            pa.array(orders.cents[first] / 100),
        ],
        names=[
            "user_id",
            "first_purchase_date",
            "acquisition_week",
            "first_order_cds",
            "first_order_value",
        ],
    )


def features_of(orders: Orders, on: date) -> pa.RecordBatch:
    """The rows of the features table at the end of the day `on`; as `churn.cdnow.features_at`."""
    today = (on - _START).days
    age = today - orders.day
    seen = age >= 0

    def total(weights: Integers, where: npt.NDArray[np.bool_]) -> Integers:
        # Sums of cents are exact in doubles.
        return np.bincount(
            orders.customer[where], weights=weights[where], minlength=orders.customers
        ).astype(np.int64)

    one = np.ones_like(orders.day)
    count = total(one, seen)
    cents, cents_90d = total(orders.cents, seen), total(orders.cents, seen & (age < _WINDOWS))
    cents_180d = total(orders.cents, seen & (age < 2 * _WINDOWS))
    starts = np.searchsorted(orders.customer, np.arange(orders.customers))
    first = orders.day[starts]
    # The last order seen stands `count` places after the one before the customer's first.
    last = orders.day[starts + np.maximum(count, 1) - 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = (last - first) / (count - 1)
        average = cents / 100 / count
    batch = pa.RecordBatch.from_arrays(
        [
            _user_ids(orders),
            pa.array([on]).take(pa.array(np.zeros(orders.customers, np.int64))),
            pa.array(today - last),
            pa.array(today - first),
            pa.array(count),
            pa.array(total(one, seen & (age < 30))),
            pa.array(total(one, seen & (age < _WINDOWS))),
            pa.array(total(orders.cds, seen)),
            pa.array(cents / 100),
            pa.array(cents_90d / 100),
            pa.array((2 * cents_90d - cents_180d) / 100),
            pa.array(np.round(average, 2)),
            pa.array(np.round(gap, 2), mask=count < 2),
        ],
        names=[
            "user_id",
            "feature_date",
            "recency_days",
            "tenure_days",
            "orders_total",
            "orders_30d",
            "orders_90d",
            "cds_total",
            "spend_total",
            "spend_90d",
            "spend_change_90d",
            "avg_order_value",
            "mean_gap_days",
        ],
    )
    return batch.filter(pa.array(count > 0))


def labels_of(orders: Orders, on: date) -> pa.RecordBatch:
    """The rows of the labels table for the day `on`; as `churn.cdnow.label_at`."""
    today = (on - _START).days
    after = (orders.day > today) & (orders.day <= today + HORIZON.days)
    customers = np.arange(orders.customers)
    came = orders.day[np.searchsorted(orders.customer, customers)] <= today
    bought = np.bincount(orders.customer[after], minlength=orders.customers) > 0
    batch = pa.RecordBatch.from_arrays(
        [
            _user_ids(orders),
            pa.array([on]).take(pa.array(np.zeros(orders.customers, np.int64))),
            pa.array(~bought),
        ],
        names=["user_id", "label_date", "label_value"],
    )
    return batch.filter(pa.array(came))


def _user_ids(orders: Orders) -> pa.Array:
    numbers = np.arange(orders.first_number, orders.first_number + orders.customers)
    return pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 9, "0")


def _dates(days: Integers) -> pa.Array:
    return pa.array(np.datetime64(_START) + days)


class _Batch:
    """One month's three files, written a chunk of customers at a time."""

    def __init__(self, folder: Path, month: int, file_format: Format, stack: ExitStack) -> None:
        self.folder = folder / f"month_{month:03}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.as_of = BATCHES.as_of(month)
        known_before = BATCHES.as_of(month - 1) if month else date.min
        days = [FEATURE_MONTHS.as_of(number) for number in range(month + 4)]
        self._feature_days = [day for day in days if known_before < day <= self.as_of]
        self._label_days = [day for day in days if known_before < day + HORIZON <= self.as_of]
        self.rows: dict[str, int] = {}
        empty = Orders(0, 0, *[np.zeros(0, np.int64)] * 4)
        self._writers = {}
        for name, schema in {
            "users": users_of(empty).schema,
            "features": features_of(empty, self.as_of).schema,
            "labels": labels_of(empty, self.as_of).schema,
        }.items():
            path = self.folder / f"{name}.{file_format}"
            self._writers[name] = _open(path, schema, file_format, stack)
            self.rows[name] = 0

    def write(self, orders: Orders, users: pa.RecordBatch) -> None:
        parts: dict[str, Sequence[pa.RecordBatch]] = {
            "users": [users],
            "features": [features_of(orders, day) for day in self._feature_days],
            "labels": [labels_of(orders, day) for day in self._label_days],
        }
        for name, batches in parts.items():
            for batch in batches:
                self._writers[name].write_batch(batch)
                self.rows[name] += batch.num_rows


def _open(path: Path, schema: pa.Schema, file_format: Format, stack: ExitStack) -> Any:
    if file_format == "parquet":
        return stack.enter_context(pyarrow.parquet.ParquetWriter(path, schema))
    compression = "gzip" if file_format == "csv.gz" else None
    file = stack.enter_context(pa.output_stream(path, compression=compression))
    # Its own header would be in quotes.
    file.write(f"{','.join(schema.names)}\n".encode())
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    return stack.enter_context(pyarrow.csv.CSVWriter(file, schema, write_options=options))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write large batches of the churn product's shape")
    parser.add_argument("--customers", type=int, required=True)
    parser.add_argument("--months", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=["csv", "csv.gz", "parquet"], default="csv")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for batch in write_batches(
        options.out,
        customers=options.customers,
        months=options.months,
        seed=options.seed,
        file_format=options.format,
    ):
        counts = ", ".join(f"{rows:,} {name}" for name, rows in batch.rows.items())
        print(f"{batch.folder} known on {batch.as_of}: {counts}")


if __name__ == "__main__":
    main()
