from __future__ import annotations

from pathlib import Path

from stack import deployments


def test_every_declared_deployment_is_run_and_the_loop_last():
    names = deployments.declared(Path("deploy/prefect/deployments.toml"))
    assert {"ingest/churn-ingest", "train/churn-train"} <= set(names)
    assert names[-1] == "loop/churn-loop"
