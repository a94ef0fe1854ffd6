"""The seed folders: by hand, against brute force, and against the committed ones."""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churn.cdnow import (
    Features,
    LabelSummary,
    Order,
    User,
    build,
    features_at,
    label_at,
    main,
    order_histories,
    summary_table,
    user_row,
)
from churn.cdnow_log import Purchase, packaged_log, read_log
from espalier.errors import UsageError

SEEDS = Path("data/seeds/churn")
FILES = ("users.csv", "features.csv", "labels.csv")
FOLDERS = [f"month_{number:03}" for number in range(13)]

EARLY = Purchase("00001", date(1997, 1, 1), 1, 1177)
# The horizon of 1997-03-31 ends on 1997-06-29: this one is its last day.
LAST_DAY = Purchase("00002", date(1997, 6, 29), 3, 3000)
TINY = [
    EARLY,
    Purchase("00002", date(1997, 1, 12), 1, 1200),
    Purchase("00002", date(1997, 1, 12), 5, 7700),
    LAST_DAY,
    Purchase("00003", date(1997, 4, 15), 2, 0),
]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="ascii", newline="") as file:
        return list(csv.DictReader(file))


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.csv"))}


def test_tiny_log_gives_the_first_folder_computed_by_hand(tmp_path: Path) -> None:
    build(TINY, tmp_path)
    first = tmp_path / "month_000"
    assert (first / "users.csv").read_text() == (
        "user_id,first_purchase_date,acquisition_week,first_order_cds,first_order_value\n"
        "00001,1997-01-01,1997-W01,1,11.77\n"
        "00002,1997-01-12,1997-W02,6,89.00\n"
        "00003,1997-04-15,1997-W16,2,0.00\n"
    )
    assert (first / "features.csv").read_text() == (
        "user_id,feature_date,recency_days,tenure_days,orders_total,orders_30d,orders_90d,"
        "cds_total,spend_total,spend_90d,spend_change_90d,avg_order_value,mean_gap_days\n"
        "00001,1997-03-31,89,89,1,0,1,1,11.77,11.77,11.77,11.77,\n"
        "00002,1997-03-31,78,78,1,0,1,6,89.00,89.00,89.00,89.00,\n"
        "00001,1997-04-30,119,119,1,0,0,1,11.77,0.00,-11.77,11.77,\n"
        "00002,1997-04-30,108,108,1,0,0,6,89.00,0.00,-89.00,89.00,\n"
        "00003,1997-04-30,15,15,1,1,1,2,0.00,0.00,0.00,0.00,\n"
        "00001,1997-05-31,150,150,1,0,0,1,11.77,0.00,-11.77,11.77,\n"
        "00002,1997-05-31,139,139,1,0,0,6,89.00,0.00,-89.00,89.00,\n"
        "00003,1997-05-31,46,46,1,0,1,2,0.00,0.00,0.00,0.00,\n"
        "00001,1997-06-30,180,180,1,0,0,1,11.77,0.00,0.00,11.77,\n"
        "00002,1997-06-30,1,169,2,1,1,9,119.00,30.00,-59.00,59.50,168.00\n"
        "00003,1997-06-30,76,76,1,0,1,2,0.00,0.00,0.00,0.00,\n"
    )
    assert (first / "labels.csv").read_text() == (
        "user_id,label_date,label_value\n00001,1997-03-31,true\n00002,1997-03-31,false\n"
    )


def test_later_folders_hold_only_what_is_new_but_all_users(tmp_path: Path) -> None:
    late = Purchase("00004", date(1997, 7, 1), 1, 999)
    summaries = build([*TINY, late], tmp_path)
    assert [summary.users for summary in summaries] == [3] + 12 * [4]
    assert {row["feature_date"] for row in rows(tmp_path / "month_001/features.csv")} == {
        "1997-07-31"
    }
    assert [row["label_value"] for row in rows(tmp_path / "month_001/labels.csv")] == [
        "true",
        "false",
        "true",
    ]
    assert summaries[1].labels == (LabelSummary(date(1997, 4, 30), rows=3, returned=1),)


def test_a_label_waits_for_the_end_of_its_horizon(tmp_path: Path) -> None:
    summaries = build(TINY, tmp_path)
    by_month = [[label.label_date for label in summary.labels] for summary in summaries]
    assert by_month == [
        [date(1997, 3, 31)],
        [date(1997, 4, 30)],
        [date(1997, 5, 31)],
        [date(1997, 6, 30)],
        [date(1997, 7, 31)],
        [date(1997, 8, 31)],
        [date(1997, 9, 30)],
        [date(1997, 10, 31)],
        [date(1997, 11, 30)],  # known on 1998-02-28, the very day of the folder
        [date(1997, 12, 31)],
        [],  # 1998-01-31 is known on 1998-05-01, a day too late for 1998-04-30
        [date(1998, 1, 31), date(1998, 2, 28)],
        [date(1998, 3, 31)],
    ]
    for summary in summaries:
        written = rows(tmp_path / summary.folder / "labels.csv")
        assert all(
            date.fromisoformat(row["label_date"]) + timedelta(days=90) <= summary.as_of
            for row in written
        )
        assert len(written) == sum(label.rows for label in summary.labels)


@pytest.mark.parametrize(
    ("bought_again_after", "churned"), [(0, True), (1, False), (90, False), (91, True)]
)
def test_the_horizon_is_the_90_days_after_the_label_date(
    bought_again_after: int, churned: bool
) -> None:
    day = date(1997, 3, 31)
    orders = [
        Order(date(1997, 1, 1), 1, 100),
        Order(day + timedelta(days=bought_again_after), 1, 100),
    ]
    assert label_at(orders, day) is churned


@pytest.mark.parametrize(
    ("age", "orders_30d", "orders_90d", "spend_90d", "spend_change_90d"),
    [
        (29, 1, 1, 5.0, 5.0),
        (30, 0, 1, 5.0, 5.0),
        (89, 0, 1, 5.0, 5.0),
        (90, 0, 0, 0.0, -5.0),
        (179, 0, 0, 0.0, -5.0),
        (180, 0, 0, 0.0, 0.0),
    ],
)
def test_a_window_ends_on_the_feature_date_and_includes_it(
    age: int, orders_30d: int, orders_90d: int, spend_90d: float, spend_change_90d: float
) -> None:
    day = date(1997, 12, 31)
    features = features_at([Order(day - timedelta(days=age), 1, 500)], day)
    assert features == Features(
        recency_days=age,
        tenure_days=age,
        orders_total=1,
        orders_30d=orders_30d,
        orders_90d=orders_90d,
        cds_total=1,
        spend_total=5.0,
        spend_90d=spend_90d,
        spend_change_90d=spend_change_90d,
        avg_order_value=5.0,
        mean_gap_days=None,
    )


def test_nobody_has_a_row_before_the_first_purchase() -> None:
    orders = [Order(date(1997, 4, 1), 1, 100)]
    assert features_at(orders, date(1997, 3, 31)) is None
    assert label_at(orders, date(1997, 3, 31)) is None
    assert features_at(orders, date(1997, 4, 1)) is not None


def test_the_acquisition_week_is_that_of_iso_8601() -> None:
    assert user_row("00009", [Order(date(1996, 12, 30), 2, 250)]) == User(
        "00009", date(1996, 12, 30), "1997-W01", 2, 2.5
    )


purchases = st.lists(
    st.builds(
        Purchase,
        user_id=st.sampled_from(["00001", "00002", "00003"]),
        day=st.dates(date(1997, 1, 1), date(1998, 9, 30)),
        cds=st.integers(1, 99),
        cents=st.integers(0, 200_000),
    ),
    min_size=1,
    max_size=30,
)
days = st.dates(date(1997, 1, 1), date(1998, 6, 30))


def brute_force(log: Sequence[Purchase], user_id: str, day: date) -> Features | None:
    """The features straight from the log's lines, one day of the calendar after the other."""

    def lines(age_from: int, age_to: int) -> list[Purchase]:
        wanted = {day - timedelta(days=age) for age in range(age_from, age_to)}
        return [p for p in log if p.user_id == user_id and p.day in wanted]

    ever = lines(0, 1000)
    if not ever:
        return None
    bought = sorted({p.day for p in ever})
    gaps = [(b - a).days for a, b in pairwise(bought)]
    recent, before = (sum(p.cents for p in lines(a, a + 90)) for a in (0, 90))
    return Features(
        recency_days=min((day - p.day).days for p in ever),
        tenure_days=max((day - p.day).days for p in ever),
        orders_total=len(bought),
        orders_30d=len({p.day for p in lines(0, 30)}),
        orders_90d=len({p.day for p in lines(0, 90)}),
        cds_total=sum(p.cds for p in ever),
        spend_total=sum(p.cents for p in ever) / 100,
        spend_90d=recent / 100,
        spend_change_90d=(recent - before) / 100,
        avg_order_value=sum(p.cents for p in ever) / 100 / len(bought),
        mean_gap_days=sum(gaps) / len(gaps) if gaps else None,
    )


# Without a database of examples nothing is kept in the repository.
@settings(database=None)
@given(purchases, days)
def test_features_and_label_agree_with_brute_force(log: list[Purchase], day: date) -> None:
    for user_id, orders in order_histories(log).items():
        expected = brute_force(log, user_id, day)
        assert features_at(orders, day) == expected
        after = {day + timedelta(days=ahead) for ahead in range(1, 91)}
        again = any(p.user_id == user_id and p.day in after for p in log)
        assert label_at(orders, day) is (None if expected is None else not again)


@settings(database=None)
@given(purchases, purchases, days)
def test_later_purchases_do_not_leak_into_features(
    log: list[Purchase], more: list[Purchase], day: date
) -> None:
    later = [p for p in more if p.day > day]
    known, all_of_it = order_histories(log), order_histories([*log, *later])
    for user_id, orders in all_of_it.items():
        before = features_at(known[user_id], day) if user_id in known else None
        assert features_at(orders, day) == before


def test_a_folder_does_not_change_by_what_happens_after_it(tmp_path: Path) -> None:
    log = list(read_log(packaged_log(sample=True)))
    known = [p for p in log if p.day <= date(1997, 9, 30)]
    assert len(known) < len(log)
    build(log, tmp_path / "all")
    build(known, tmp_path / "known")
    for folder in FOLDERS[:4]:
        assert contents(tmp_path / "all" / folder) == contents(tmp_path / "known" / folder)
    assert contents(tmp_path / "all" / FOLDERS[4]) != contents(tmp_path / "known" / FOLDERS[4])


def test_the_order_of_the_log_does_not_matter(tmp_path: Path) -> None:
    shuffled = list(TINY)
    random.Random(0).shuffle(shuffled)
    assert shuffled != TINY
    build(TINY, tmp_path / "sorted")
    build(shuffled, tmp_path / "shuffled")
    assert contents(tmp_path / "sorted") == contents(tmp_path / "shuffled")


def test_committed_seeds_are_what_the_packaged_sample_gives(tmp_path: Path) -> None:
    assert main(["--sample", "--out", str(tmp_path)]) == 0
    rebuilt = contents(tmp_path)
    assert list(rebuilt) == sorted(f"{folder}/{name}" for folder in FOLDERS for name in FILES)
    assert contents(SEEDS) == rebuilt


def test_the_full_log_drifts_as_the_design_says(tmp_path: Path) -> None:
    summaries = build(read_log(packaged_log(sample=False)), tmp_path)
    labels = [label for summary in summaries for label in summary.labels]
    assert labels[0] == LabelSummary(date(1997, 3, 31), rows=23_570, returned=5_349)
    assert labels[-1] == LabelSummary(date(1998, 3, 31), rows=23_570, returned=3_302)
    assert "| month_000 | 1997-06-30 | 23570 | 94280 | 23570 | 1997-03-31 | 22.7% |" in (
        summary_table(summaries)
    )


def test_main_says_in_one_line_that_it_cannot_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["--sample", "--out", str(tmp_path / "file")]) == UsageError.exit_code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "cannot be written" in error


def test_main_says_in_one_line_that_the_data_package_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "lifetimes", raising=False)
    assert main(["--sample", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "install Lifetimes==0.11.3" in error


@pytest.mark.parametrize("argv", [[], ["--sample"], ["--sample", "--full", "--out", "x"]])
def test_main_refuses_wrong_use(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
