"""The checks of what runs flows, against a real Prefect server and a real worker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from espalier.cli.doctor.finding import Finding, Subject
from espalier.cli.doctor.testing import examined, found, subject
from espalier.orchestration.prefect_server import prefect_environment
from espalier.orchestration.testing import Api, interruptible_children, running_prefect
from espalier.processes import Process, python_environment

DECLARED = """
[pool]
name = "looked-at"
limit = 2

[[deployment]]
name = "churn"
flow = "ingest"
project = "churn"
pex = "churn-ingest.pex"
concurrency = 1
"""


@dataclass(frozen=True)
class Flows:
    """A Prefect server, and a folder with the declaration and a PEX."""

    folder: Path
    api: Api

    @property
    def subject(self) -> Subject:
        env = {
            "PREFECT_API_URL": self.api.url,
            "ESPALIER_PEX_STORE": str(self.folder / "store"),
        }
        return subject(self.folder, env=env)

    def found(self, name: str) -> Finding:
        return found(self.subject, name)

    def deploy(self, *options: str) -> None:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "espalier.cli.main", "deploy"),
                *(str(self.subject.deployments), "--pexes", str(self.subject.pexes), *options),
            ],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **python_environment(),
            **prefect_environment(self.folder / "prefect"),
            "PREFECT_API_URL": self.api.url,
            "ESPALIER_PEX_STORE": str(self.folder / "store"),
            "ESPALIER_PEX_CACHE": str(self.folder / "cache"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "1",
        }


@pytest.fixture(scope="module")
def flows(tmp_path_factory) -> Iterator[Flows]:
    folder = tmp_path_factory.mktemp("flows")
    (folder / "deployments.toml").write_text(DECLARED)
    (folder / "dist").mkdir()
    # It is recorded and stored, and not run here.
    (folder / "dist" / "churn-ingest.pex").write_bytes(b"any program")
    with running_prefect(folder / "prefect") as api:
        yield Flows(folder, api)


@pytest.fixture(scope="module")
def deployed(flows: Flows) -> Flows:
    flows.deploy("--record")
    return flows


def test_without_pool_what_needs_it_is_not_looked_at(flows: Flows):
    prefect, pool, worker, declared = examined(
        flows.subject, "prefect", "pool", "worker", "deployments"
    )
    assert prefect.finding.state == "ok"
    assert pool.finding == Finding("fail", "there is no work pool looked-at", "espalier.pex deploy")
    assert worker.finding.what == declared.finding.what == "not looked at: see pool"
    # Asked for alone, they tell the same.
    assert flows.found("worker").what == "there is no work pool looked-at"
    assert "2 of 2 differ" in flows.found("deployments").what


def test_without_the_declared_file(flows: Flows):
    finding = found(replace(flows.subject, deployments=flows.folder / "nowhere.toml"), "pool")
    assert finding.state == "fail"
    assert "nowhere.toml: cannot be read" in finding.what


def test_deployments_as_declared(deployed: Flows):
    assert deployed.found("pool").what == "work pool looked-at, 2 runs at a time"
    assert deployed.found("deployments") == Finding("ok", "1 as declared")


def test_a_pex_of_another_digest_differs(deployed: Flows):
    sums = deployed.folder / "dist" / "SHA256SUMS"
    recorded = sums.read_text()
    sums.write_text(f"{'0' * 64}  churn-ingest.pex\n")
    try:
        finding = deployed.found("deployments")
    finally:
        sums.write_text(recorded)
    assert finding.state == "fail"
    assert finding.what == "1 of 2 differ from the declaration: deployment ingest/churn"
    assert "espalier.pex deploy" in finding.fix


def test_where_no_digests_are_recorded_the_rest_is_compared(deployed: Flows):
    finding = found(replace(deployed.subject, pexes=deployed.folder / "elsewhere"), "deployments")
    assert finding.state == "ok"
    assert "were not compared" in finding.what


def test_a_paused_deployment_is_warned_of(deployed: Flows):
    path = "/deployments/name/ingest/churn"
    identity = deployed.api.client.get(path).json()["id"]
    deployed.api.client.patch(f"/deployments/{identity}", json={"paused": True})
    try:
        finding = deployed.found("deployments")
    finally:
        deployed.api.client.patch(f"/deployments/{identity}", json={"paused": False})
    assert (finding.state, finding.what) == ("warn", "ingest/churn is paused")


def test_a_paused_pool_fails(deployed: Flows):
    deployed.api.client.patch("/work_pools/looked-at", json={"is_paused": True})
    try:
        finding = deployed.found("pool")
    finally:
        deployed.api.client.patch("/work_pools/looked-at", json={"is_paused": False})
    assert finding == Finding(
        "fail", "work pool looked-at is paused", "prefect work-pool resume looked-at"
    )


def test_a_worker_is_missed_and_then_online(deployed: Flows):
    missed = deployed.found("worker")
    assert missed == Finding(
        "fail", "no worker of pool looked-at is online", "espalier.pex worker --pool looked-at"
    )
    command = [sys.executable, "-m", "espalier.cli.main", "worker", "--pool", "looked-at"]
    with (
        interruptible_children(),
        Process(
            "worker",
            command,
            log=deployed.folder / "worker.log",
            env=deployed.environment,
            cwd=deployed.folder,
        ) as process,
    ):
        process.wait_until(lambda: deployed.found("worker").state == "ok", seconds=120)
        assert deployed.found("worker").what == "1 online"
