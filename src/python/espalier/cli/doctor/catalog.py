"""All checks, in the order in which they are told. docs/troubleshooting.md has a section for each."""

from __future__ import annotations

from espalier.cli.doctor import data, flows, host, model, watching
from espalier.cli.doctor.finding import Check

_FEAST = ("espalier.features.feast_store",)
_ONNX = ("numpy", "onnxruntime")
_PREFECT = ("prefect.client.orchestration",)
_FLOWS = (*_PREFECT, "espalier.orchestration.flows.loop")

CHECKS: tuple[Check, ...] = (
    Check(name="interpreter", run=host.interpreter),
    Check(name="environment", run=host.environment),
    Check(name="addresses", run=host.addresses, needs=("environment",)),
    Check(name="disk", run=host.disk, needs=("environment",)),
    Check(name="database", run=data.database, needs=("environment",)),
    Check(name="migrations", run=data.migrations, needs=("database",)),
    Check(name="feast", run=data.feast, needs=("migrations",), imports=_FEAST),
    Check(name="online-store", run=data.online_store, needs=("migrations",)),
    Check(name="mlflow", run=model.mlflow, needs=("environment",)),
    Check(name="model", run=model.model, needs=("migrations", "mlflow"), seconds=30, imports=_ONNX),
    Check(name="server", run=model.server, needs=("environment",)),
    Check(name="exporter", run=watching.exporter, needs=("environment",)),
    Check(name="prometheus", run=watching.prometheus, needs=("environment",)),
    Check(name="grafana", run=watching.grafana, needs=("environment",)),
    Check(name="prefect", run=flows.prefect, needs=("environment",)),
    Check(name="pool", run=flows.pool, needs=("prefect",), imports=_PREFECT),
    Check(name="worker", run=flows.worker, needs=("pool",), imports=_PREFECT),
    Check(name="deployments", run=flows.declared, needs=("pool",), seconds=30, imports=_FLOWS),
)
