"""A database that hangs, stops and comes back while callers never stop."""

from __future__ import annotations

import signal

from espalier.serving.testing_load import unaccounted, under_load
from espalier.serving.testing_server import NOT_SERVING, SERVICE, SERVING

# Of the reader, the prediction log, and of the one that hears of promotions.
MOST_CONNECTIONS = 4 + 1 + 1


def refused_at_once(load):
    """Wait for far more refusals than there would be if each waited for the database; their codes."""
    before = load.counts()
    load.until(
        lambda: min(load.since(before).refused[code] for code in ("UNAVAILABLE", "HTTP 503")) > 100
    )
    load.until(lambda: load.since(before).refused["UNAVAILABLE"] > 500)
    return set(load.since(before).refused)


def test_a_database_that_hangs_is_refused_at_once_and_used_when_it_goes_on(running, database):
    with under_load(running) as load:
        load.until_served(200)
        database.hang()
        try:
            load.until(lambda: not running.is_ready())
            assert refused_at_once(load) == {"UNAVAILABLE", "HTTP 503"}
            # Both are told of the check each second.
            load.until(lambda: running.metric("espalier_ready") == 0)
            load.until(lambda: running.health(SERVICE) == NOT_SERVING)
            assert database.connections() <= MOST_CONNECTIONS
        finally:
            database.go_on()
        load.until(running.is_ready)
        before = load.counts()
        load.until_served(200)
        assert not load.since(before).refused
        load.until(lambda: running.health(SERVICE) == SERVING)
    load.tell("PostgreSQL hangs (SIGSTOP) and goes on")
    assert load.counts().lost == ()
    running.until(lambda: unaccounted(running) == 0)
    assert running.metric("espalier_predictions_not_logged_total") == 0
    assert database.connections() <= MOST_CONNECTIONS
    assert "unexpected error" not in running.events()


def test_a_database_that_stops_twice_is_used_each_time_it_comes(running, database):
    with under_load(running) as load:
        for _ in range(2):
            load.until_served(200)
            database.stop()
            try:
                load.until(lambda: not running.is_ready())
                assert refused_at_once(load) == {"UNAVAILABLE", "HTTP 503"}
            finally:
                database.start()
            load.until(running.is_ready)
            before = load.counts()
            load.until_served(200)
            assert not load.since(before).refused
    load.tell("PostgreSQL stops and starts, twice")
    assert load.counts().lost == ()
    running.until(lambda: unaccounted(running) == 0)
    assert running.events().count("online store reachable") == 2
    assert "unexpected error" not in running.events()


def test_what_was_logged_stands_there_once_though_the_database_was_killed(running, database):
    database.execute("TRUNCATE espalier.predictions")
    logged = running.metric("espalier_predictions_logged_total") or 0
    with under_load(running, batch_callers=0, http_callers=0) as load:
        for _ in range(3):
            load.until_served(300)
            database.kill()
            database.stop()
            database.start()
            load.until(running.is_ready)
        load.until_served(300)
    load.tell("PostgreSQL is killed (SIGKILL) and starts, three times")
    assert load.counts().lost == ()
    running.until(lambda: unaccounted(running) == 0)
    ((stored,),) = database.execute("SELECT count(*) FROM espalier.predictions")
    assert stored == running.metric("espalier_predictions_logged_total") - logged


def test_a_server_ends_in_time_though_its_database_hangs(running, database):
    with under_load(running) as load:
        load.until_served(100)
    database.hang()
    try:
        running.process.send_signal(signal.SIGTERM)
        # Its own limits: 10 s for requests under way, of which there are none, 5 s for the log.
        assert running.process.wait(20) == 0
    finally:
        database.go_on()
    assert running.events()[-1] == "stopped"
