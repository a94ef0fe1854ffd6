from __future__ import annotations

import json
from pathlib import Path

import pytest

from espalier.cli import main, observers

ADDRESSES = {
    "espalier-server": "127.0.0.1:1",
    "espalier-exporter": "127.0.0.1:2",
    "prometheus": "127.0.0.1:3",
    "alertmanager": "127.0.0.1:4",
}


@pytest.mark.parametrize("name", ["prometheus", "alertmanager", "grafana"])
def test_one_that_is_not_here_is_told_and_no_failure(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main.main(["server", name]) == 0
    assert f"{name} is not on PATH, so the stack runs without it" in capsys.readouterr().out


def test_without_a_checkout_it_says_so(tmp_path, monkeypatch, capsys):
    program = tmp_path / "alertmanager"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main.main(["server", "alertmanager"]) == 2
    assert "deploy/alertmanager is not there; run at the root" in capsys.readouterr().err


def test_the_configuration_names_this_stack_alone(tmp_path: Path):
    source, target = tmp_path / "source", tmp_path / "state" / "configuration"
    (source / "rules").mkdir(parents=True)
    (source / "prometheus.yml").write_text("global: {}\n")
    (source / "rules" / "one.yml").write_text("groups: []\n")
    (source / "targets.example.json").write_text("[]")
    (target / "targets").mkdir(parents=True)
    (target / "targets" / "older.json").write_text("[]")
    assert observers.configure(source, target, ADDRESSES, project="churn") == target
    files = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert files == [
        "prometheus.yml",
        "rules/one.yml",
        "targets-alertmanager/stack.json",
        "targets/stack.json",
    ]
    groups = json.loads((target / "targets" / "stack.json").read_text())
    assert groups[0] == {
        "targets": ["127.0.0.1:1"],
        "labels": {"job": "espalier-server", "project": "churn"},
    }
    assert {one["labels"]["job"]: one["targets"][0] for one in groups} == ADDRESSES
    [alertmanager] = json.loads((target / "targets-alertmanager" / "stack.json").read_text())
    assert alertmanager["targets"] == ["127.0.0.1:4"]
