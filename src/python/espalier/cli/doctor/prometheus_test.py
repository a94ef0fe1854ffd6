"""The check of Prometheus against a real one: targets up, down and missing, and a broken rule."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from espalier.cli.doctor.finding import Finding
from espalier.cli.doctor.testing import answering, found, subject
from espalier.probe import answers
from espalier.processes import Process, reserved_port
from espalier.testing_tools import tool

_CONFIGURATION = """
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yml]
scrape_configs:
  - job_name: espalier
    file_sd_configs: [{files: [targets.json]}]
"""
_WRONG = """
groups:
  - name: wrong
    rules: [{record: wrong, expr: "up * on(job) group_left() count by (job, instance) (up)"}]
"""


@contextmanager
def running(
    folder: Path, targets: dict[str, list[str]], rules: str = "groups: []"
) -> Iterator[str]:
    (folder / "prometheus.yml").write_text(_CONFIGURATION)
    (folder / "rules.yml").write_text(rules)
    jobs = [{"targets": at, "labels": {"job": job}} for job, at in targets.items()]
    (folder / "targets.json").write_text(json.dumps(jobs))
    with reserved_port() as port:
        process = Process(
            "Prometheus",
            [
                str(tool("prometheus")),
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            log=folder / "prometheus.log",
        )
        with process:
            url = f"http://127.0.0.1:{port}"
            wanted = sum(len(at) for at in targets.values())
            process.wait_until(lambda: answers(f"{url}/-/ready"), seconds=60)
            process.wait_until(lambda: len(known(url)) == wanted, seconds=60)
            yield url


def known(url: str) -> list[Any]:
    """The targets that it has found."""
    targets: list[Any] = httpx.get(f"{url}/api/v1/targets").json()["data"]["activeTargets"]
    return targets


def settled(folder: Path, url: str) -> Finding:
    """What is found once every target was scraped."""
    asked = subject(folder, env={"ESPALIER_PROMETHEUS_URL": url})
    deadline = time.monotonic() + 60
    while (finding := found(asked, "prometheus")).state in ("warn", "ok"):
        if finding.state == "ok":
            return finding
        assert time.monotonic() < deadline, finding
        time.sleep(0.1)
    return finding


def test_all_targets_are_up(tmp_path):
    with answering(200, "one 1\n") as address:
        targets = {"espalier-server": [address], "espalier-exporter": [address]}
        with running(tmp_path, targets) as url:
            finding = settled(tmp_path, url)
    assert (finding.state, finding.what) == ("ok", "all 2 targets are up, 0 rules")


def test_a_target_that_is_down_is_named(tmp_path):
    with answering(200, "one 1\n") as address:
        targets = {"espalier-server": ["127.0.0.1:1"], "espalier-exporter": [address]}
        with running(tmp_path, targets) as url:
            finding = settled(tmp_path, url)
    assert finding.state == "fail"
    assert "1 of 2 targets are down: espalier-server at http://127.0.0.1:1" in finding.what
    assert "connection refused" in finding.what


def test_a_job_without_target_is_missed(tmp_path):
    with (
        answering(200, "one 1\n") as address,
        running(tmp_path, {"espalier-server": [address]}) as url,
    ):
        finding = settled(tmp_path, url)
    assert finding.state == "fail"
    assert finding.what == "Prometheus has no target of espalier-exporter"


def test_a_rule_that_fails_is_named(tmp_path):
    with answering(200, "one 1\n") as address, answering(200, "one 1\n") as other:
        targets = {"espalier-server": [address, other], "espalier-exporter": [address]}
        with running(tmp_path, targets, _WRONG) as url:
            asked = subject(tmp_path, env={"ESPALIER_PROMETHEUS_URL": url})
            deadline = time.monotonic() + 60
            while (finding := found(asked, "prometheus")).state != "fail":
                assert time.monotonic() < deadline, finding
                time.sleep(0.1)
    assert finding.what.startswith("rule wrong fails: ")
