"""Malformed and oversized input against a real server; benchmarks/serving/fuzz.py sends more."""

from __future__ import annotations

import json
import re

import pytest

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.serving.testing import expected_score
from espalier.serving.testing_fuzz import ALLOWED, Target, blocks
from espalier.serving.testing_server import serving
from espalier.serving.testing_wire import resident_bytes

_INPUTS = 600
_GROWTH = 64 * 2**20


@pytest.fixture(scope="module")
def running(dsn, registry, tmp_path_factory):
    with serving(dsn, registry.uri, tmp_path_factory.mktemp("fuzz")) as running:
        running.until(running.is_ready)
        yield running


@pytest.mark.parametrize("name", list(blocks()))
def test_no_input_ends_it_or_is_its_own_fault(running, name):
    target = Target(running.grpc_address, running.http.base_url.netloc.decode())
    before = resident_bytes(running.process.pid)
    codes = blocks()[name](target, _INPUTS, 6)
    assert codes.total() >= _INPUTS
    assert set(codes) <= ALLOWED, codes
    assert_sound(running, before)


def assert_sound(running, before):
    answer = running.stub.Predict(pb.PredictRequest(entity_id="u0001"), timeout=10)
    assert answer.score == pytest.approx(expected_score("u0001", 0.01), abs=1e-6)
    assert running.http.post("/predict", json={"user_id": "u0001"}).status_code == 200
    running.until(lambda: running.metric('espalier_requests_in_flight{transport="grpc"}') == 0)
    assert resident_bytes(running.process.pid) - before < _GROWTH
    text = running.http.get("/metrics").text
    assert not [
        line for line in text.splitlines() if re.search('code="(INTERNAL|UNKNOWN|5..)"', line)
    ]
    # Every line is of the log's own making, and none has a trace.
    for line in running.log.read_text().splitlines():
        assert "trace" not in json.loads(line), line
