"""When a batch leaves."""

from __future__ import annotations

from espalier.serving.gathering import Gathering

LONGEST = 0.004


def round_of(gathering: Gathering, callers: int) -> None:
    """So many callers ask, go together and are answered."""
    for _ in range(callers):
        gathering.arrived()
    gathering.departed()
    for _ in range(callers):
        gathering.left()


def after_rounds_of(callers: int, rounds: int = 100) -> Gathering:
    gathering = Gathering(LONGEST)
    for _ in range(rounds):
        round_of(gathering, callers)
    return gathering


def test_a_lone_caller_never_waits() -> None:
    gathering = Gathering(LONGEST)
    for _ in range(100):
        gathering.arrived()
        assert gathering.pause(0.0) == 0.0
        gathering.departed()
        gathering.left()


def test_the_first_of_a_crowd_waits_for_the_others_and_no_longer() -> None:
    gathering = after_rounds_of(8)
    for _ in range(7):
        gathering.arrived()
        assert gathering.pause(0.0) == LONGEST
    gathering.arrived()
    assert gathering.pause(0.0) == 0.0


def test_a_wait_ends_though_nobody_comes() -> None:
    gathering = after_rounds_of(8)
    gathering.arrived()
    assert gathering.pause(LONGEST / 4) == LONGEST * 3 / 4
    assert gathering.pause(LONGEST) == 0.0
    assert gathering.pause(1.0) == 0.0


def test_a_crowd_that_is_gone_is_forgotten() -> None:
    gathering = after_rounds_of(64)
    waits = 0
    for _ in range(500):
        gathering.arrived()
        waits += gathering.pause(0.0) > 0
        gathering.departed()
        gathering.left()
    assert waits < 20


def test_now_and_then_a_batch_looks_for_more_than_lately() -> None:
    gathering = after_rounds_of(8)
    looked = []
    for _ in range(32):
        for _ in range(8):
            gathering.arrived()
        looked.append(gathering.pause(0.0) > 0)
        gathering.departed()
        for _ in range(8):
            gathering.left()
    assert looked.count(True) == 2
