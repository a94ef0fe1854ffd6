from __future__ import annotations

import threading

import pytest

from espalier.cli.doctor.examine import examine
from espalier.cli.doctor.finding import Check, ok, warn
from espalier.cli.doctor.testing import subject
from espalier.errors import DependencyUnreachable


@pytest.fixture
def looked_at(tmp_path):
    return subject(tmp_path)


def broken(_subject):
    raise DependencyUnreachable("away", fix="bring it back")


def test_checks_run_side_by_side(looked_at):
    # Neither ends unless both have begun.
    both = threading.Barrier(2, timeout=10)

    def meet(_subject):
        both.wait()
        return ok("met")

    found = list(examine([Check(name="a", run=meet), Check(name="b", run=meet)], looked_at))
    assert [(one.name, one.finding.state) for one in found] == [("a", "ok"), ("b", "ok")]


def test_one_that_hangs_is_left_behind(looked_at):
    released = threading.Event()

    def hang(_subject):
        released.wait(60)
        return ok("at last")

    checks = [
        Check(name="hangs", run=hang, seconds=0.2),
        Check(name="after", run=lambda _: ok("well"), needs=("hangs",)),
        Check(name="beside", run=lambda _: ok("well")),
    ]
    try:
        hangs, after, beside = examine(checks, looked_at)
    finally:
        released.set()
    assert hangs.finding.state == "fail"
    assert hangs.finding.what.startswith("no answer within 0.2 s")
    assert (after.finding.state, after.finding.what) == ("skipped", "not looked at: see hangs")
    assert beside.finding.state == "ok"


def test_what_needs_a_broken_one_names_the_root(looked_at):
    checks = [
        Check(name="last", run=lambda _: ok("well"), needs=("middle",)),
        Check(name="middle", run=lambda _: ok("well"), needs=("root",)),
        Check(name="root", run=broken),
    ]
    last, middle, root = examine(checks, looked_at)
    assert (root.finding.what, root.finding.fix) == ("away", "bring it back")
    assert last.finding.what == middle.finding.what == "not looked at: see root"


def test_what_needs_a_warned_one_runs(looked_at):
    checks = [
        Check(name="root", run=lambda _: warn("old", "renew it")),
        Check(name="last", run=lambda _: ok("well"), needs=("root",)),
    ]
    assert [one.finding.state for one in examine(checks, looked_at)] == ["warn", "ok"]


def test_one_that_is_not_chosen_is_taken_to_be_well(looked_at):
    [one] = examine([Check(name="a", run=lambda _: ok("well"), needs=("gone",))], looked_at)
    assert one.finding.state == "ok"


def test_a_surprise_is_a_finding(looked_at):
    def surprise(_subject):
        raise ZeroDivisionError("division\nby zero")

    checks = [
        Check(name="a", run=surprise),
        Check(name="b", run=lambda _: ok("well"), imports=("no_such_module",)),
    ]
    a, b = examine(checks, looked_at)
    assert (a.finding.state, a.finding.what) == ("fail", "ZeroDivisionError: division")
    assert b.finding.what == "ModuleNotFoundError: No module named 'no_such_module'"
