"""A database that is slow or locked: deadlines hold, and what is too much is refused."""

from __future__ import annotations

from espalier.serving.testing_load import unaccounted, under_load

QUEUE = 4096


def test_a_locked_table_is_refused_in_time_and_read_when_it_is_free(running, database):
    with under_load(running, timeout=1.0) as load:
        load.until_served(200)
        before = load.counts()
        with database.locked():
            load.until(lambda: sum(load.since(before).refused.values()) > 100)
            load.until(lambda: load.since(before).refused["HTTP 503"] > 4)
            load.until(lambda: not running.is_ready())
        assert set(load.since(before).refused) <= {"DEADLINE_EXCEEDED", "UNAVAILABLE", "HTTP 503"}
        load.until(running.is_ready)
        load.until_served(200)
    load.tell("a lock on the online table, callers with 1 s")
    assert load.counts().lost == ()
    # Nobody waited for long: 2 s are a read's limit, and a batch waits for the one before it.
    assert load.counts().slowest < 10
    running.until(lambda: unaccounted(running) == 0)


def test_deadlines_hold_while_reads_are_slow(running, database):
    with under_load(running, timeout=0.4, http_callers=0) as load:
        load.until_served(200)
        with database.slow(0.6):
            slow = load.counts()
            load.until(lambda: load.since(slow).refused["DEADLINE_EXCEEDED"] > 0)
            before = load.counts()
            load.until(lambda: load.since(before).refused["DEADLINE_EXCEEDED"] > 100)
            assert set(load.since(before).refused) == {"DEADLINE_EXCEEDED"}
            assert load.since(before).served == 0
        load.until_served(200)
    load.tell("reads of 0.6 s, callers with 0.4 s")
    assert load.counts().lost == ()


def test_callers_with_time_are_served_by_a_slow_database(running, database):
    with under_load(running, timeout=8.0) as load:
        load.until_served(200)
        with database.slow(0.3):
            load.until_served(100)
            assert running.is_ready()
        load.until_served(200)
    load.tell("reads of 0.3 s, callers with 8 s")
    assert load.counts().lost == ()
    assert not load.counts().refused


def test_what_is_too_much_for_a_slow_database_is_shed(running, database):
    with under_load(running, batch_callers=60, batch_size=250, timeout=8.0) as load:
        load.until_served(100)
        with database.slow(0.3):
            load.until(lambda: load.counts().refused["RESOURCE_EXHAUSTED"] > 100)
            for _ in range(20):
                assert running.metric('espalier_queue_entities{model="churn"}') <= QUEUE
            assert running.metric('espalier_sheds_total{model="churn",reason="overloaded"}') > 100
        load.until_served(100)
    load.tell("reads of 0.3 s, more callers than the queue holds")
    assert load.counts().lost == ()
    assert set(load.counts().refused) <= {"RESOURCE_EXHAUSTED", "HTTP 429", "DEADLINE_EXCEEDED"}
    running.until(lambda: unaccounted(running) == 0, 60)
    assert running.metric('espalier_queue_entities{model="churn"}') == 0
