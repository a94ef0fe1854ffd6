from __future__ import annotations

import gzip
from collections import defaultdict
from dataclasses import astuple
from datetime import date, timedelta
from pathlib import Path

import pyarrow.parquet
import pytest

import generate
from churn.cdnow import Order, features_at, label_at, user_row

START = date(1997, 1, 1)


def histories(orders: generate.Orders) -> dict[str, list[Order]]:
    found = defaultdict(list)
    columns = (orders.customer, orders.day, orders.cds, orders.cents)
    for customer, day, cds, cents in zip(*(c.tolist() for c in columns), strict=True):
        user_id = f"{orders.first_number + customer:09}"
        found[user_id].append(Order(START + timedelta(days=day), cds, cents))
    return found


def test_rows_are_those_of_the_real_pipeline_on_the_same_orders() -> None:
    (orders,) = generate.chunks(customers=300, days=400, seed=1)
    expected = histories(orders)
    users = generate.users_of(orders).to_pylist()
    assert [tuple(row.values()) for row in users] == [
        astuple(user_row(user_id, history)) for user_id, history in expected.items()
    ]
    for day in (date(1997, 1, 20), date(1997, 6, 30), date(1997, 10, 31)):
        rows = {row["user_id"]: row for row in generate.features_of(orders, day).to_pylist()}
        labels = {
            row["user_id"]: row["label_value"]
            for row in generate.labels_of(orders, day).to_pylist()
        }
        for user_id, history in expected.items():
            seen = features_at(history, day)
            if seen is None:
                assert user_id not in rows
                assert user_id not in labels
                continue
            row = rows[user_id]
            assert row.pop("feature_date") == day
            assert row == pytest.approx(
                {"user_id": user_id} | {name: getattr(seen, name) for name in seen.__slots__},
                abs=0.0051,
            )
            assert labels[user_id] is label_at(history, day)
        assert rows
    assert {label_at(h, date(1997, 6, 30)) for h in expected.values()} == {True, False}


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    written = [
        generate.write_batches(tmp_path / name, customers=50, months=2, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    one, same, other = (
        [path.read_bytes() for batch in batches for path in sorted(batch.folder.iterdir())]
        for batches in written
    )
    assert one == same
    assert one != other


def test_formats_hold_the_same_rows_and_the_counts_are_told(tmp_path: Path) -> None:
    (batch,) = generate.write_batches(tmp_path / "csv", customers=50, months=1)
    generate.write_batches(tmp_path / "gz", customers=50, months=1, file_format="csv.gz")
    generate.write_batches(tmp_path / "parquet", customers=50, months=1, file_format="parquet")
    assert batch.as_of == date(1997, 6, 30)
    assert batch.rows == {"users": 50, "features": 200, "labels": 50}
    for name, rows in batch.rows.items():
        text = (batch.folder / f"{name}.csv").read_bytes()
        assert text.count(b"\n") == rows + 1
        packed = tmp_path / "gz" / "month_000" / f"{name}.csv.gz"
        assert gzip.decompress(packed.read_bytes()) == text
        table = pyarrow.parquet.read_table(tmp_path / "parquet" / "month_000" / f"{name}.parquet")
        assert table.num_rows == rows


def test_customers_do_not_depend_on_how_many_there_are() -> None:
    few, many = (
        next(generate.chunks(customers=customers, days=200, seed=3)) for customers in (10, 1000)
    )
    some = histories(many)
    assert histories(few) == {user_id: some[user_id] for user_id in histories(few)}
