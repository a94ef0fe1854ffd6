"""How a run ended is recorded, whatever ended it."""

from __future__ import annotations

import pytest

from espalier.errors import BadData, CheckRefused
from espalier.orchestration import context
from espalier.postgres.connect import connect


@pytest.fixture
def dsn(server, database, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("HOST", server.host),
        ("PORT", str(server.port)),
        ("USER", server.user),
        ("PASSWORD", server.password),
        ("DB", database),
    ):
        monkeypatch.setenv(f"POSTGRES_{name}", value)
    return server.dsn(database)


def runs(dsn):
    with connect(dsn) as connection:
        return connection.execute(
            "SELECT project, flow, state, detail FROM espalier.flow_runs ORDER BY id"
        ).fetchall()


def test_a_run_that_completed(dsn):
    with context.begin("churn", flow="train"):
        assert runs(dsn) == []
    assert runs(dsn) == [("churn", "train", "completed", "")]


@pytest.mark.parametrize(
    ("error", "state", "detail"),
    [
        (CheckRefused("the gate said no"), "refused", "the gate said no"),
        (BadData("torn"), "failed", "torn"),
        (ValueError("unforeseen"), "failed", "unforeseen"),
        (KeyboardInterrupt(), "cancelled", ""),
    ],
)
def test_a_run_that_did_not(dsn, error, state, detail):
    with pytest.raises(type(error)), context.begin("churn", flow="ingest"):
        raise error
    assert runs(dsn) == [("churn", "ingest", state, detail)]


def test_without_a_name_nothing_is_recorded(dsn):
    with context.begin("churn"):
        pass
    assert runs(dsn) == []
