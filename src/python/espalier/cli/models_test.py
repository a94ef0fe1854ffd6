"""The command over a real registry."""

from __future__ import annotations

import json
import subprocess

import pytest

from espalier.registry.rest import MlflowRest
from espalier.testing_web import NOBODY


def said(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """The exit code and the one line of a command that failed."""
    assert done.stdout == ""
    assert done.stderr.startswith("espalier: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr[len("espalier: ") : -1]


def printed(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that succeeded printed, in 80 columns."""
    assert (done.returncode, done.stderr) == (0, "")
    if "--json" in done.args:
        return done.stdout
    # An address is not broken in two.
    assert max(len(line) for line in done.stdout.splitlines() if "://" not in line) <= 80
    return done.stdout


def test_versions_are_listed_with_alias_metric_and_gate(registered) -> None:
    before, now = registered.promoted(0.01, 0.02)
    refused = registered.register(gate="refused", gate_reason="worse")
    lines = printed(registered.espalier("models", "list")).splitlines()
    assert lines[0].split() == [
        "version",
        "alias",
        "roc_auc",
        "(95",
        "%)",
        "gate",
        "registered",
        "(UTC)",
    ]
    by_version = {line.split()[0]: line for line in lines[1:]}
    assert "champion" in by_version[now]
    assert "previous" in by_version[before]
    assert "0.7500 (0.7000 to 0.8000)" in by_version[now]
    assert "refused" in by_version[refused]
    values = json.loads(printed(registered.espalier("models", "list", "--json", "--limit", "1")))
    assert [value["version"] for value in values] == [refused]
    assert values[0]["gate_reason"] == "worse"


def test_a_version_is_shown_with_all_that_is_known(registered) -> None:
    (version,) = registered.promoted(0.01)
    text = printed(registered.espalier("models", "show", "champion"))
    assert text.startswith(f"churn version {version}, champion\n")
    digest = json.loads((registered.stored(version) / "manifest.json").read_text())["digest"]
    assert digest in text
    assert "roc_auc  0.7500 (0.7000 to 0.8000)" in text
    assert "passed leakage: no feature knows the label" in text
    assert f"{registered.uri}/#/experiments/" in text
    value = json.loads(printed(registered.espalier("models", "show", version, "--json")))
    assert value["version"]["version"] == version
    assert {file["name"]: file["digest"] for file in value["files"]}["model.onnx"] == digest


def test_promotion_and_rollback_are_in_the_ledger(registered) -> None:
    (old,) = registered.promoted(0.01)
    new = registered.register(0.02, gate="accepted", gate_opponent=f"champion {old}")
    done = registered.espalier("models", "promote", new, "--why", "a better one")
    assert printed(done) == f"version {new} of churn is champion (was version {old})\n"
    done = registered.espalier("models", "rollback", "--why", "it is worse")
    assert printed(done) == f"version {old} of churn is champion again (was version {new})\n"
    text = printed(registered.espalier("models", "ledger"))
    *_, promoted, why, rolled_back, reason = text.splitlines()
    assert promoted.endswith(f"promote   {old} -> {new}  by somebody")
    assert why == "    a better one"
    assert rolled_back.endswith(f"rollback  {new} -> {old}  by somebody")
    assert reason == "    it is worse"
    entries = json.loads(printed(registered.espalier("models", "ledger", "--json")))
    assert [entry["kind"] for entry in entries[-2:]] == ["promote", "rollback"]
    assert entries[-2]["evidence"]["gate"]["checks"][0]["name"] == "leakage"


def test_what_the_gate_refused_is_promoted_by_force_alone_and_the_ledger_says_so(
    registered,
) -> None:
    (old,) = registered.promoted(0.01)
    new = registered.register(0.02, gate="refused", gate_reason="a slice collapsed")
    code, line = said(registered.espalier("models", "promote", new, "--why", "we need it"))
    assert code == 1
    assert "was refused by the gate: a slice collapsed" in line
    assert registered.champion() == old
    done = registered.espalier("models", "promote", new, "--why", "we need it", "--force", "--json")
    entry = json.loads(printed(done))
    assert (entry["to_version"], entry["why"]) == (new, "we need it")
    assert "a slice collapsed" in entry["evidence"]["forced_against"]
    assert "forced: version" in printed(registered.espalier("models", "ledger"))


def test_a_verdict_against_another_champion_does_not_count(registered) -> None:
    (old,) = registered.promoted(0.01)
    stale = registered.register(0.02, gate="accepted", gate_opponent="champion 0")
    code, line = said(registered.espalier("models", "promote", stale, "--why", "it passed"))
    assert code == 1
    assert f"was compared with champion 0, not with champion {old}" in line


def test_a_rollback_to_a_version_that_cannot_be_loaded_is_refused(registered) -> None:
    old, now = registered.promoted(0.01, 0.02)
    model = registered.stored(old) / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    code, line = said(registered.espalier("models", "rollback"))
    assert code == 4
    assert f"model.onnx of churn version {old} has sha256" in line
    assert registered.champion() == now


def test_aliases_that_were_moved_by_hand_are_repaired(registered) -> None:
    old, now = registered.promoted(0.01, 0.02)
    with MlflowRest(registered.uri) as mlflow:
        mlflow.set_alias("churn", old)
        # One entry behind looks like a promotion that was cut off; this does not.
        mlflow.delete_alias("churn", "champion")
        code, line = said(registered.espalier("models", "promote", old, "--why", "x"))
        assert code == 1
        assert line.endswith("set it back by espalier models ledger --repair")
        printed(registered.espalier("models", "ledger", "--repair"))
        assert mlflow.aliases("churn") == {"champion": now, "previous": old}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["models"], "the following arguments are required: ACTION"),
        (["models", "promote", "1"], "the following arguments are required: --why"),
        (["models", "show", "999999"], "MLflow has no version 999999 of model churn"),
        (["models", "list", "--limit", "0"], "argument --limit: '0' is not a number from 1 to"),
        (["models", "list", "--limit", "x"], "argument --limit: 'x' is not a number from 1 to"),
        (["models", "list", "--project", "nope"], "no project 'nope' here"),
        (["reproduce"], "the following arguments are required: version"),
    ],
)
def test_wrong_use_is_2_and_one_line(registered, arguments, reason) -> None:
    code, line = said(registered.espalier(*arguments))
    assert code == 2
    assert line.startswith(reason)


def test_a_rollback_to_what_was_never_champion_is_2_and_one_line(registered) -> None:
    old, _ = registered.promoted(0.01, 0.02)
    code, line = said(registered.espalier("models", "rollback", "--to", "999999"))
    assert code == 2
    assert line.startswith("version 999999 of churn is no champion before version")
    assert old in line


@pytest.mark.parametrize(
    "command",
    [
        ["models"],
        ["models", "list"],
        ["models", "show"],
        ["models", "promote"],
        ["models", "rollback"],
        ["models", "ledger"],
        ["reproduce"],
    ],
)
def test_help(registered, command) -> None:
    done = registered.espalier(*command, "--help")
    assert printed(done).startswith(" ".join(["usage: espalier", *command]))


@pytest.mark.parametrize("action", [["list"], ["show", "1"], ["rollback"]])
def test_a_registry_that_is_down_is_3_and_one_line(registered, action) -> None:
    nowhere = f"http://{NOBODY}"
    code, line = said(registered.espalier("models", *action, MLFLOW_TRACKING_URI=nowhere))
    assert code == 3
    assert line.startswith(f"MLflow at {nowhere}: ")


def test_a_version_without_provenance_cannot_be_reproduced_and_says_so(registered) -> None:
    version = registered.register()
    code, line = said(registered.espalier("reproduce", version))
    assert code == 4
    assert f"provenance.json of churn version {version} is not a record of provenance" in line
