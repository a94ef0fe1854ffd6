"""Prometheus' and Alertmanager's own tools on what is committed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from espalier.testing_tools import tool
from observability import render, slo

FOLDER = Path("deploy/prometheus")
CASES = FOLDER / "tests/alerts.yml"


def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=280, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_configuration_is_valid():
    code, told = run(tool("promtool"), "check", "config", FOLDER / "prometheus.yml")
    assert code == 0, told
    assert "rules found" in told


def test_the_rules_are_valid_and_none_is_there_twice():
    code, told = run(tool("promtool"), "check", "rules", FOLDER / "rules/espalier.yml")
    assert code == 0, told
    assert "duplicate" not in told


def test_every_alert_fires_and_resolves():
    code, told = run(tool("promtool"), "test", "rules", CASES)
    assert code == 0, told


def test_an_alert_that_never_fires_would_be_seen(tmp_path):
    rules = yaml.safe_load((FOLDER / "rules/espalier.yml").read_text())
    (broken,) = [r for r in rules["groups"][2]["rules"] if r["alert"] == "EspalierDrift"]
    broken["expr"] = broken["expr"].replace("> 0", "> 1")
    content = yaml.safe_load(CASES.read_text())
    content["rule_files"] = ["rules.yml"]
    content["tests"] = [case for case in content["tests"] if case["name"] == "EspalierDrift"]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    (tmp_path / "cases.yml").write_text(yaml.safe_dump(content))
    code, told = run(tool("promtool"), "test", "rules", tmp_path / "cases.yml")
    assert code == 1
    assert "EspalierDrift" in told


def test_every_alert_has_its_case():
    """Each is expected to fire at one time, and at a later one to be gone."""
    fires, resolves = set(), set()
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        for check in case.get("promql_expr_test", ()):
            expr = check["expr"]
            (name,) = re.findall(r'alertname="(\w+)"', expr)
            if not check["exp_samples"]:
                window = re.findall(r'window="(\w+)"', expr)
                assert " ".join([name, *window]) in fires, "a case first fires"
                resolves.add(" ".join([name, *window]))
            for sample in check["exp_samples"]:
                assert sample["value"] == 1
                fires.add(" ".join([name, *re.findall(r'window="(\w+)"', sample["labels"])]))
    identities = {alert.identity for alert in slo.load(render.SLO).alerts}
    assert fires == identities
    assert resolves == identities


@pytest.mark.parametrize("name", ["alertmanager.yml", "receivers.example.yml"])
def test_alertmanager_takes_its_configuration(name):
    code, told = run(tool("amtool"), "check-config", Path("deploy/alertmanager") / name)
    assert code == 0, told


def test_nobody_is_told_by_default():
    receivers = yaml.safe_load(Path("deploy/alertmanager/alertmanager.yml").read_text())
    assert receivers["receivers"] == [{"name": "nobody"}]
