"""The stages of the loop, each by its real component, as Prefect flow runs in this process."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx

from espalier.cli import stack
from espalier.cli.client import Prediction, predict
from espalier.cli.console import Console
from espalier.errors import DependencyUnreachable, GateRefused
from espalier.features.layout import select_any_key
from espalier.ingest import snapshots
from espalier.orchestration import recorded
from espalier.postgres.connect import connect
from espalier.project import Project
from espalier.registry import download
from espalier.registry.download import Champion
from espalier.settings import Settings


@dataclass(frozen=True)
class Predicted:
    """One customer's prediction, over both transports."""

    grpc: Prediction
    http: Mapping[str, Any]


class Loop:
    """The stages in their order, on one project and the servers that the settings name."""

    def __init__(self, project: Project, settings: Settings, console: Console) -> None:
        """Nothing is done yet."""
        self._project, self._settings, self._console = project, settings, console
        self._as_of = date.min

    def load_libraries(self, running: stack.Stack) -> None:
        """Import what the stages need, while the servers start, and wait for those."""
        with self._console.step("start") as step:
            # Feast, Great Expectations, scikit-learn, MLflow, Evidently: seconds each.
            import espalier.features.feast_store
            import espalier.ingest.great_expectations_adapter
            import espalier.monitoring.evidently_adapter
            import espalier.orchestration.flows.ingest
            import espalier.orchestration.flows.materialize
            import espalier.orchestration.flows.monitor
            import espalier.orchestration.flows.score
            import espalier.orchestration.flows.train  # noqa: F401  # all imported for their time

            running.wait_for_mlflow()
            step.note(f"MLflow on {self._settings.mlflow_tracking_uri}")
            running.wait_for_prefect()
            step.note(f"Prefect on {self._settings.prefect_api_url.removesuffix('/api')}")

    def ingest(self, months: Mapping[date, Path]) -> None:
        """Validate and store every batch, oldest first."""
        from espalier.orchestration.flows.ingest import ingest

        with self._console.step("ingest") as step:
            new = rows = faulty = 0
            for as_of, source in months.items():
                facts = self._run(ingest, as_of=as_of, source=source)
                new += facts["status"] == "stored"
                rows += sum(facts["new rows"].values())
                faulty += sum(facts["quarantined"].values())
                self._as_of = as_of
            step.note(f"{new} new snapshots of {len(months)} batches, {rows:,} new rows")
            if faulty:
                step.note(f"{faulty:,} in quarantine")

    def materialize(self) -> None:
        """Put the newest features into the online store."""
        from espalier.orchestration.flows.materialize import materialize

        with self._console.step("materialize") as step:
            facts = self._run(materialize, as_of=self._as_of)
            step.note(f"{facts['entities']:,} entities online, as of {self._as_of}")

    def train(self) -> Champion:
        """Train on the newest snapshot, unless the champion was."""
        from espalier.orchestration.flows.train import train

        with self._console.step("train") as step:
            champion = self._champion()
            if champion is not None and self._is_of_newest_snapshot(champion):
                step.note(f"version {champion.version} is of the newest snapshot already")
                return champion
            facts = self._run(train, as_of=self._as_of)
            step.note(f"version {facts['version']} of {facts['rows']:,} rows")
            step.note("promoted" if facts["promoted"] else f"not promoted: {facts['reason']}")
            champion = self._champion()
            if champion is None:
                raise GateRefused(
                    f"no model to serve: {facts['reason']}",
                    fix="docs/training.md tells how to read a refusal",
                )
            return champion

    @contextmanager
    def serve(self, running: stack.Stack) -> Iterator[stack.Serving]:
        """Run the prediction server; the features' age is judged as of the newest batch."""
        arguments = ["--project", self._project.name, "--as-of", self._as_of.isoformat()]
        with ExitStack() as exits:
            with self._console.step("serve") as step:
                serving = exits.enter_context(stack.predicting(running, arguments))
                step.note(f"gRPC on {serving.grpc_address}")
                step.note(f"HTTP on {serving.http_address}")
            yield serving

    def predict(self, serving: stack.Serving) -> Predicted:
        """Ask for one customer over gRPC and over HTTP."""
        with self._console.step("predict") as step:
            entity_id = self._any_entity()
            by_grpc = predict(serving.grpc_address, entity_id)
            answer = httpx.post(
                f"http://{serving.http_address}/predict",
                json={self._project.entity.join_key: entity_id},
                timeout=10,
            )
            answer.raise_for_status()
            step.note(f"{self._project.entity.name} {entity_id} over gRPC and HTTP")
            return Predicted(by_grpc, answer.json())

    def score(self, folder: Path) -> None:
        """Predict for everyone in one batch, as Parquet files in a folder of the batch's day."""
        from espalier.orchestration.flows.score import score

        output = str(folder / self._as_of.isoformat())
        # It tells its progress there, which the step's line does here.
        with self._console.step("score") as step, redirect_stderr(io.StringIO()):
            facts = self._run(score, as_of=self._as_of, output=output, partitions=1)
            step.note(f"{facts['rows']:,} predictions")
            step.note(f"in {output}")

    def monitor(self) -> Mapping[str, Any]:
        """Compare the newest features with those of training."""
        from espalier.orchestration.flows.monitor import monitor

        with self._console.step("monitor") as step:
            facts = self._run(monitor, as_of=self._as_of)
            told = {True: "drift", False: "no drift", None: "nothing to compare"}
            step.note(told[facts["drift"]])
            return facts

    def _run(self, flow: Any, **parameters: Any) -> dict[str, Any]:
        """Run a flow here, recorded by the Prefect server."""
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        # Prefect waits up to a second for its heartbeat thread when a run ends.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            return recorded.run(
                flow,
                {"project": self._project.name, **parameters},
                api_url=self._settings.prefect_api_url,
            )

    def _champion(self) -> Champion | None:
        return download.champion(self._settings.mlflow_tracking_uri, self._project.name)

    def _is_of_newest_snapshot(self, champion: Champion) -> bool:
        with connect(self._settings.dsn) as connection:
            newest = snapshots.newest(connection, self._project.name)
        origin = champion.manifest.provenance
        return newest is not None and origin.get("snapshot_id") == str(newest.id)

    def _any_entity(self) -> str:
        project = self._project
        query = select_any_key(project.name, project.view.name, project.entity.join_key)
        with connect(self._settings.dsn) as connection:
            found = connection.execute(query).fetchone()
        if found is None:
            raise DependencyUnreachable("the online store is empty", fix="ingest and materialize")
        return str(found[0])
