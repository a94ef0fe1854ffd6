"""Several workers on one port, as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import grpc
import httpx
import psycopg
import pytest

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from espalier.serving.testing import ENTITIES
from espalier.serving.testing_server import command, environment, serving, started

COUNT = 'espalier_requests_total{code="OK",method="Predict",transport="grpc"}'
# Each channel a connection of its own, which the system gives to one of the workers.
OWN = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture
def pair(dsn, registry, tmp_path):
    with serving(dsn, registry.uri, tmp_path, "--workers", "2") as running:
        assert "ready" in running.line(), running.log.read_text()
        yield running


def worker_pids(running):
    lines = [json.loads(line) for line in running.log.read_text().splitlines()]
    found = [line for line in lines if line["event"] == "worker started"]
    return {line["worker"]: line["pid"] for line in found}


def predict(running, times):
    for number in range(times):
        with grpc.insecure_channel(running.grpc_address, options=OWN) as channel:
            stub = pb_grpc.PredictionServiceStub(channel)
            assert stub.Predict(pb.PredictRequest(entity_id=ENTITIES[number]), timeout=10).status


def metric(running, name):
    """As `Running.metric`, by a connection of its own: any worker may answer."""
    with httpx.Client(base_url=running.http.base_url) as client:
        for line in client.get("/metrics").text.splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
    return None


def test_every_worker_tells_the_same_sum_and_a_killed_ones_counts_stay(pair):
    assert metric(pair, "espalier_workers") == 2
    predict(pair, 40)
    for _ in range(8):
        assert metric(pair, COUNT) == 40
        assert metric(pair, 'espalier_batch_entities_count{model="churn"}') == 40
        assert metric(pair, 'espalier_batch_entities_bucket{le="1.0",model="churn"}') == 40
        assert metric(pair, 'espalier_requests_in_flight{transport="grpc"}') == 0
    before = worker_pids(pair)
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    pair.until(lambda: set(worker_pids(pair).values()).isdisjoint(before.values()))
    pair.until(lambda: pair.is_ready() and metric(pair, "espalier_ready") == 1)
    pair.until(lambda: metric(pair, "espalier_workers") == 2)
    assert metric(pair, COUNT) == 40
    assert metric(pair, "espalier_worker_restarts_total") == 2
    predict(pair, 10)
    assert metric(pair, COUNT) == 50


def test_workers_do_not_outlive_a_parent_that_is_killed(pair):
    pids = worker_pids(pair).values()
    pair.process.kill()
    pair.process.wait(30)
    deadline = time.monotonic() + 15
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_fault_that_no_restart_mends_ends_the_server_with_its_line(dsn, registry, tmp_path):
    (tmp_path / "tokens").write_text("broken\n")
    with started(dsn, registry.uri, tmp_path, "--workers", "2", "--tokens", "tokens") as (
        process,
        *_,
        log,
    ):
        assert process.wait(30) == 2
        assert "tokens line 1 is not NAME SHA256" in log.read_text()


def test_another_servers_port_is_not_shared(dsn, pair, tmp_path):
    done = subprocess.run(
        command("--workers", "2", "--grpc-address", pair.grpc_address, "--http-address", ""),
        env=environment(dsn, "http://127.0.0.1:1"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert f"cannot listen on {pair.grpc_address}: Address already in use" in done.stderr


def test_a_dead_database_connection_is_no_workers_end(pair, dsn):
    pids = worker_pids(pair)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'espalier-serving'"
        )
    predict(pair, 10)
    assert worker_pids(pair) == pids
