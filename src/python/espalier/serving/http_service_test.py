"""Errors that a healthy server does not show. The rest is in server_test.py."""

# ruff: noqa: ARG002  # the arguments of the reader's interface

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest

from churn.project import PROJECT
from espalier.errors import DeadlineTooShort, Overloaded
from espalier.serving.core import Predictor
from espalier.serving.http_service import create_app
from espalier.serving.metrics import Metrics
from espalier.serving.readiness import Readiness, ServerReadiness
from espalier.serving.routing import Product
from espalier.serving.scoring import RowScorer
from espalier.serving.testing import AS_OF


class FailingReader:
    def __init__(self, failure):
        self.failure = failure

    async def read(self, source, keys):
        raise self.failure

    async def check(self, source):
        raise self.failure


def ask(loaded, failure, *, parts=None):
    """Post one prediction to an application whose reads fail; give the answer and the metrics."""

    async def run():
        predictor = Predictor(FailingReader(failure), name="churn", clock=lambda: AS_OF)
        predictor.model = loaded
        metrics = Metrics()
        readiness = Readiness(predictor, model_problem=lambda: "")
        product = Product(PROJECT, predictor, RowScorer(predictor.describe), readiness)
        app = create_app([product], ServerReadiness({"churn": readiness}), metrics)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            if parts is None:
                answer = await client.post("/predict", json={"user_id": "u0001"})
            else:
                answer = await client.post("/predict", content=parts())
        await predictor.close(1)
        return answer, metrics.text().decode()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("failure", "status", "reason", "again"),
    [
        (Overloaded("full"), 429, "OVERLOADED", "1"),
        (DeadlineTooShort("late"), 504, "DEADLINE_TOO_SHORT", None),
    ],
)
def test_load_and_deadlines_have_their_codes(loaded, failure, status, reason, again):
    answer, metrics = ask(loaded, failure)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert answer.headers.get("retry-after") == again
    assert (
        f'espalier_requests_total{{code="{status}",method="predict",transport="http"}} 1' in metrics
    )
    assert 'espalier_requests_in_flight{transport="http"} 0.0' in metrics


def test_a_surprise_is_opaque_logged_and_counted(loaded, caplog):
    with caplog.at_level(logging.ERROR):
        answer, metrics = ask(loaded, ValueError("the password is hunter2"))
    assert answer.status_code == 500
    assert answer.json()["reason"] == "INTERNAL"
    assert "hunter2" not in answer.text
    (record,) = caplog.records
    assert record.error_id in answer.text
    assert 'code="500"' in metrics


def test_a_large_body_without_a_length_is_refused_before_it_is_read_whole(loaded):
    sent = 0

    async def parts():
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b"x" * 1024

    answer, _ = ask(loaded, Overloaded("unused"), parts=parts)
    assert answer.status_code == 413
    assert sent < 20
