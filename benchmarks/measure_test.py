from __future__ import annotations

import os
import subprocess
import sys

import pytest

import measure


def test_sides_take_turns_and_every_round_is_kept() -> None:
    calls: list[str] = []
    timings = measure.rounds(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
        2,
        prepare={"b": lambda: calls.append("prepare")},
        warm_up=1,
        progress=False,
    )
    assert calls == ["prepare", "b", "a", "a", "prepare", "b", "prepare", "b", "a"]
    assert [len(one.seconds) for one in timings.values()] == [2, 2]


def test_a_table_tells_ratios_of_medians() -> None:
    timings = {
        "ours": measure.Timing("ours", (1.0, 3.0, 2.0), (0, 0, 0)),
        "theirs": measure.Timing("theirs", (4.0,), (0,)),
    }
    told = measure.table(timings, rows=100, against="theirs").splitlines()
    assert told[0].endswith("| x theirs | rows/s |")
    assert told[2] == "| ours | 3 | 1.000 | 2.000 | 3.000 | 0.50 | 50 |"
    assert told[3] == "| theirs | 1 | 4.000 | 4.000 | 4.000 | 1.00 | 25 |"


def test_a_spread_is_minimum_median_and_maximum() -> None:
    assert measure.spread([3.0, 1.0, 2.0, 10.0], ".1f") == ["1.0", "2.5", "10.0"]
    assert measure.spread_header("ms") == ["ms min", "median", "max"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell shares")
def test_a_share_of_memory_is_no_more_than_what_the_process_has() -> None:
    before = measure.pss(os.getpid())
    held = b"x" * 200_000_000
    now = measure.pss(os.getpid())
    assert before + 150_000_000 < now <= measure.peak_rss()
    assert held
    with pytest.raises(ProcessLookupError):
        measure.pss(2**22 + 1)


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="measure nothing"):
        measure.rounds({"a": int}, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep no peak of other processes")
def test_the_peak_of_another_process_counts_what_it_let_go() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "b = b'x' * 200_000_000; del b; print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert measure.peak_rss(child.pid) > 200_000_000
        child.communicate(b"\n")
    with pytest.raises(ProcessLookupError):
        measure.peak_rss(child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot forget a peak")
def test_a_peak_can_begin_anew() -> None:
    held = b"x" * 300_000_000
    high = measure.peak_rss()
    del held
    measure.reset_peak()
    assert measure.peak_rss() < high - 200_000_000
    assert measure.peak_rss() == measure.peak_rss(os.getpid())


def test_the_machine_is_one_line() -> None:
    assert "cores" in measure.machine()
    assert "\n" not in measure.machine()
