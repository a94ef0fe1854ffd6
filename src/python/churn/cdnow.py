"""Turns the CDNOW purchase log into the monthly seed folders of the churn product.

A seed folder holds what became known in one month, so that a store fed with the folders one by one
sees the world as it was then: features use purchases up to their own date, and a label appears in
the first month whose end its 90-day horizon has reached.

    python -m churn.cdnow --sample --out data/seeds/churn
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from operator import attrgetter
from pathlib import Path

from churn.cdnow_log import Purchase, packaged_log, read_log
from churn.project import PROJECT
from espalier.errors import EspalierError, UsageError
from espalier.project import Calendar, batch_folder

BATCHES = PROJECT.calendar
BATCH_COUNT = 13
FEATURE_MONTHS = Calendar(first=date(1997, 3, 31))
FEATURE_MONTH_COUNT = 16
HORIZON = PROJECT.label.horizon


@dataclass(frozen=True, slots=True)
class Order:
    """All that one customer bought on one day: the unit in which CDNOW purchases are counted."""

    day: date
    cds: int
    cents: int


@dataclass(frozen=True, slots=True)
class User:
    """A row of users.csv: what is known of a customer from the first order on, and never changes.

    `first_order_value` is in US dollars; `acquisition_week` is the ISO 8601 week of the first
    purchase, for example 1997-W01.
    """

    user_id: str
    first_purchase_date: date
    acquisition_week: str
    first_order_cds: int
    first_order_value: float


@dataclass(frozen=True, slots=True)
class Features:
    """A row of features.csv without its key: one customer as seen at the end of one day.

    Days are counted back from that day; a window of 90 days ends on it and includes it. Money is in
    US dollars. `mean_gap_days` is None until there is a second order.
    """

    recency_days: int
    tenure_days: int
    orders_total: int
    orders_30d: int
    orders_90d: int
    cds_total: int
    spend_total: float
    spend_90d: float
    spend_change_90d: float
    avg_order_value: float
    mean_gap_days: float | None


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """How many customers have a label at `label_date`, and how many of them bought again."""

    label_date: date
    rows: int
    returned: int


@dataclass(frozen=True, slots=True)
class MonthSummary:
    """What one seed folder holds: rows of each file, and the labels by date (none, one or two)."""

    folder: str
    as_of: date
    users: int
    features: int
    labels: tuple[LabelSummary, ...]


def order_histories(purchases: Iterable[Purchase]) -> dict[str, list[Order]]:
    """Sums the purchases of a customer on a day to one order: user_id -> orders from old to new.

    The customers come in the order of their ids, whatever the order of the log.
    """
    days: defaultdict[str, dict[date, tuple[int, int]]] = defaultdict(dict)
    for purchase in purchases:
        cds, cents = days[purchase.user_id].get(purchase.day, (0, 0))
        days[purchase.user_id][purchase.day] = (cds + purchase.cds, cents + purchase.cents)
    return {
        user_id: [Order(day, *total) for day, total in sorted(days[user_id].items())]
        for user_id in sorted(days)
    }


def user_row(user_id: str, orders: Sequence[Order]) -> User:
    """The static row of a customer, from the first of the `orders` (old to new, at least one)."""
    first = orders[0]
    year, week, _ = first.day.isocalendar()
    return User(user_id, first.day, f"{year}-W{week:02}", first.cds, first.cents / 100)


def features_at(orders: Sequence[Order], day: date) -> Features | None:
    """The features of a customer at the end of `day`, from the orders up to that day alone.

    `orders` run from old to new and may go on after `day`. None for who has not bought by then.
    """
    seen = [order for order in orders if order.day <= day]
    if not seen:
        return None
    first, last = seen[0].day, seen[-1].day
    ages = [(day - order.day).days for order in seen]
    cents_total = sum(order.cents for order in seen)
    cents_90d = sum(order.cents for order, age in zip(seen, ages, strict=True) if age < 90)
    cents_180d = sum(order.cents for order, age in zip(seen, ages, strict=True) if age < 180)
    return Features(
        recency_days=ages[-1],
        tenure_days=ages[0],
        orders_total=len(seen),
        orders_30d=sum(age < 30 for age in ages),
        orders_90d=sum(age < 90 for age in ages),
        cds_total=sum(order.cds for order in seen),
        spend_total=cents_total / 100,
        spend_90d=cents_90d / 100,
        spend_change_90d=(2 * cents_90d - cents_180d) / 100,
        avg_order_value=cents_total / 100 / len(seen),
        mean_gap_days=(last - first).days / (len(seen) - 1) if len(seen) > 1 else None,
    )


def label_at(orders: Sequence[Order], day: date) -> bool | None:
    """True when the customer buys nothing in the 90 days after `day`, the last of them included.

    Wants the orders up to `day` + 90 days. None for who has not bought by `day`.
    """
    if orders[0].day > day:
        return None
    return not any(day < order.day <= day + HORIZON for order in orders)


def build(purchases: Iterable[Purchase], out: Path) -> list[MonthSummary]:
    """Writes `out`/month_000 (1997-06-30) to month_012 (1998-06-30); says what each one holds.

    The log is taken to be complete up to 1998-06-30. users.csv lists all customers known at the end
    of the month; features.csv and labels.csv hold the rows that are new since the month before
    (the first month: all rows so far). The horizon of the labels ends after 90 days, not three
    months: none becomes known in 1998-04 (month_010) and two label dates do in 1998-05 (month_011).
    The same purchases, in whatever order, give the same bytes. Existing files are overwritten; a
    bad log is found before the first file is written.

    Raises:
        UsageError: `out` cannot be written.
    """
    histories = order_histories(purchases)
    try:
        return [_write_month(histories, number, out) for number in range(BATCH_COUNT)]
    except OSError as error:
        raise UsageError(
            f"{error.filename or out}: cannot be written: {error.strerror}",
            fix="name a folder that can be made or written to",
        ) from error


def build_full(out: Path) -> None:
    """Write the batches of the whole log, of which the repository holds a tenth."""
    build(read_log(packaged_log(sample=False)), out)


def _write_month(histories: Mapping[str, Sequence[Order]], number: int, out: Path) -> MonthSummary:
    as_of = BATCHES.as_of(number)
    known_before = BATCHES.as_of(number - 1) if number else date.min
    days = [FEATURE_MONTHS.as_of(month) for month in range(FEATURE_MONTH_COUNT)]
    feature_dates = [day for day in days if known_before < day <= as_of]
    label_dates = [day for day in days if known_before < day + HORIZON <= as_of]
    folder = out / batch_folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    return MonthSummary(
        folder=folder.name,
        as_of=as_of,
        users=_write_users(folder / "users.csv", histories, as_of),
        features=_write_features(folder / "features.csv", histories, feature_dates),
        labels=_write_labels(folder / "labels.csv", histories, label_dates),
    )


def _write_users(path: Path, histories: Mapping[str, Sequence[Order]], as_of: date) -> int:
    columns = [field.name for field in fields(User)]
    cells = attrgetter(*columns)
    rows = (
        cells(user_row(user_id, orders))
        for user_id, orders in histories.items()
        if orders[0].day <= as_of
    )
    return _write_csv(path, columns, rows)


def _write_features(
    path: Path, histories: Mapping[str, Sequence[Order]], days: Iterable[date]
) -> int:
    columns = [field.name for field in fields(Features)]
    cells = attrgetter(*columns)
    rows = (
        (user_id, day, *cells(features))
        for day in days
        for user_id, orders in histories.items()
        if (features := features_at(orders, day)) is not None
    )
    return _write_csv(path, ["user_id", "feature_date", *columns], rows)


def _write_labels(
    path: Path, histories: Mapping[str, Sequence[Order]], days: Sequence[date]
) -> tuple[LabelSummary, ...]:
    rows = [
        (user_id, day, churned)
        for day in days
        for user_id, orders in histories.items()
        if (churned := label_at(orders, day)) is not None
    ]
    _write_csv(path, ["user_id", "label_date", "label_value"], rows)
    total = Counter(day for _, day, _ in rows)
    returned = Counter(day for _, day, churned in rows if not churned)
    return tuple(LabelSummary(day, total[day], returned[day]) for day in days)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    written = 0
    with path.open("w", encoding="ascii", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([_cell(value) for value in row])
            written += 1
    return written


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.2f}"
    return str(value)


def summary_table(summaries: Iterable[MonthSummary]) -> str:
    """The summaries as a Markdown table: a line for each folder and label date."""
    lines = [
        "| folder | as_of | users | features | labels | label date | bought again |",
        "|---|---|---:|---:|---:|---|---:|",
    ]
    for month in summaries:
        start = f"| {month.folder} | {month.as_of} | {month.users} | {month.features} "
        for label in month.labels:
            share = f"{label.returned / label.rows:.1%}" if label.rows else ""
            lines.append(f"{start}| {label.rows} | {label.label_date} | {share} |")
            start = "| | | | "
        if not month.labels:
            lines.append(f"{start}| 0 | | |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 done, 2 wrong use or no data package, 4 bad data.

    argparse itself exits with 2 on a wrong option.
    """
    parser = argparse.ArgumentParser(
        prog="cdnow", description="Build the monthly churn seed folders from the CDNOW log."
    )
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--sample", action="store_true", help="the 1/10 sample: 2,357 customers")
    size.add_argument("--full", action="store_true", help="the full log: 23,570 customers")
    parser.add_argument(
        "--out", type=Path, required=True, help="where month_000 ... month_012 go, made if needed"
    )
    options = parser.parse_args(argv)
    try:
        summaries = build(read_log(packaged_log(sample=options.sample)), options.out)
    except EspalierError as error:
        print(f"cdnow: {error}", file=sys.stderr)
        return error.exit_code
    print(summary_table(summaries))
    return 0


if __name__ == "__main__":
    sys.exit(main())
