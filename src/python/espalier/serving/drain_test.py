"""SIGTERM and killed workers under load: what was accepted is answered."""

from __future__ import annotations

import json
import os
import signal
import time

import httpx
import pytest

from espalier.serving.testing_load import under_load
from espalier.serving.testing_server import serving

_DRAIN_SECONDS = 5


def worker_pids(running):
    lines = [json.loads(line) for line in running.log.read_text().splitlines()]
    started = [line for line in lines if line["event"] == "worker started"]
    return {line["worker"]: line["pid"] for line in started}


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_under_load_loses_nothing_and_ends_in_time(dsn, registry, tmp_path, workers):
    options = ["--workers", str(workers), "--drain-seconds", str(_DRAIN_SECONDS)]
    with serving(dsn, registry.uri, tmp_path, *options) as running:
        assert "ready" in running.line(), running.log.read_text()
        with under_load(running, http_callers=8, timeout=30) as load:
            load.until_served(500, seconds=60)
            began = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(30) == 0, running.log.read_text()
            took = time.monotonic() - began
        counts = load.counts()
        load.tell(f"SIGTERM, {workers} worker(s)")
    assert counts.lost == ()
    assert set(counts.refused) <= {"UNAVAILABLE", "HTTP 503"}
    assert counts.unreachable > 0
    # Its limit, and what is allowed for transports and log.
    assert took < _DRAIN_SECONDS + 8
    assert '"trace"' not in running.log.read_text()


def test_a_killed_worker_takes_only_what_was_in_flight_on_it(dsn, registry, tmp_path):
    with serving(dsn, registry.uri, tmp_path, "--workers", "2") as running:
        assert "ready" in running.line(), running.log.read_text()
        callers = 12 + 2 + 4
        with under_load(running, timeout=30) as load:
            load.until_served(300, seconds=60)
            killed = worker_pids(running)["w0"]
            os.kill(killed, signal.SIGKILL)
            load.until(lambda: worker_pids(running)["w0"] != killed, seconds=60)
            # The other one goes on meanwhile, and the new one takes its part.
            load.until_served(300, seconds=60)
            load.until(lambda: workers_ready(running) == 2, seconds=60)
            before = load.counts()
            load.until_served(300, seconds=60)
            assert load.since(before).lost == ()
        counts = load.counts()
        load.tell(f"1 of 2 workers killed ({len(counts.lost)} broken by it)")
    # A process that is killed answers nobody: one call a caller, at most.
    assert len(counts.lost) <= callers
    assert not counts.refused


def workers_ready(running):
    """How many workers there are; 0 when the answer was to come from one that is gone."""
    try:
        with httpx.Client(base_url=running.http.base_url) as client:
            text = client.get("/metrics").text
    except httpx.TransportError:
        return 0
    found = [line.split()[-1] for line in text.splitlines() if line.startswith("espalier_workers ")]
    return float(found[0]) if found else 0
