from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from espalier.errors import DependencyUnreachable, GateRefused, UsageError
from espalier.registry.manifest import ONNX
from espalier.registry.rest import MlflowRest
from espalier.registry.versions import gate_evidence, list_versions, show
from espalier.testing_web import NOBODY

PASSED = {"gate": "accepted", "gate_reason": "better", "gate_opponent": "the baseline"}


def test_versions_are_listed_newest_first_with_what_is_known(registry, register, project) -> None:
    assert list_versions(registry.uri, project) == []
    register(1.0, **PASSED)
    run_id = register(2.0, gate="refused", gate_reason="worse").run_id
    with MlflowRest(registry.uri) as mlflow:
        mlflow.set_alias(project, "1")
    second, first = list_versions(registry.uri, project)
    assert (second.version, second.gate, second.gate_reason) == ("2", "refused", "worse")
    assert second.run_id == run_id
    assert abs(second.created - datetime.now(UTC)) < timedelta(minutes=5)
    assert (first.version, first.aliases, first.opponent) == ("1", ("champion",), "the baseline")
    assert first.metrics == {"roc_auc": 0.9, "baseline_roc_auc": 0.8}
    assert [v.version for v in list_versions(registry.uri, project, limit=1)] == ["2"]


def test_a_version_is_shown_by_number_and_by_alias(registry, register, project) -> None:
    registered = register(1.0, **PASSED)
    with MlflowRest(registry.uri) as mlflow:
        mlflow.set_alias(project, "1")
    details = show(registry.uri, project, "1")
    assert show(registry.uri, project, "champion") == details
    assert details.provenance == {"seed": 7}
    assert details.gate == {"metric": "roc_auc"}
    assert {file.name for file in details.files if file.digest} >= {ONNX, "manifest.json"}
    assert details.run_page.endswith(f"/runs/{registered.run_id}")
    assert details.run_page.startswith(registry.uri)
    for absent in ("2", "previous", "../1"):
        with pytest.raises(UsageError, match="no version"):
            show(registry.uri, project, absent)


def test_a_promotion_by_hand_rests_on_the_gates_verdict(registry, register, project) -> None:
    register(1.0, **PASSED)
    evidence = gate_evidence(registry.uri, project, "1", champion=None, force=False)
    assert evidence["gate"] == {"metric": "roc_auc"}
    assert "forced_against" not in evidence
    with pytest.raises(GateRefused, match="compared with the baseline, not with champion 4"):
        gate_evidence(registry.uri, project, "1", champion="4", force=False)


@pytest.mark.parametrize(
    ("tags", "objection"),
    [
        ({"gate": "refused", "gate_reason": "a slice fell"}, "refused by the gate: a slice fell"),
        ({}, "never judged by the gate"),
    ],
)
def test_what_the_gate_did_not_accept_needs_force_and_the_evidence_says_so(
    registry, register, project, tags, objection
) -> None:
    register(1.0, **tags)
    with pytest.raises(GateRefused, match=objection) as refused:
        gate_evidence(registry.uri, project, "1", champion=None, force=False)
    assert refused.value.exit_code == 1
    evidence = gate_evidence(registry.uri, project, "1", champion=None, force=True)
    assert objection in evidence["forced_against"]


def test_a_registry_that_is_down_is_said_in_one_line() -> None:
    with pytest.raises(DependencyUnreachable, match="MLflow"):
        list_versions(f"http://{NOBODY}", "churn")
