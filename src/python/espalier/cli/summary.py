"""What quickstart tells at its end, in at most 80 columns where the facts allow."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from espalier.cli.console import COLUMNS
from espalier.cli.loop import Predicted
from espalier.cli.stack import Serving, Stack
from espalier.project import Project
from espalier.registry.download import Champion

_INDENT = " " * 13


def of_run(
    project: Project,
    model: Champion,
    predicted: Predicted,
    drift: Mapping[str, Any],
    seconds: float,
) -> str:
    """The run's results in a few lines."""
    parts = [
        f"{project.name}: {project.description}\n",
        _part("Model", *_model(model)),
        _part("Prediction", *_prediction(project, predicted)),
        _part("Drift", *_drift(drift)),
        _part("Time", f"{seconds:.0f} s"),
    ]
    return "\n".join(parts) + "\n"


def addresses(project: Project, running: Stack, serving: Serving, entity_id: str) -> str:
    """Where the servers are, and what to ask them; `entity_id` is one that can be asked for."""
    settings, key = running.settings, project.entity.join_key
    parts = [
        "Everything is running; Ctrl-C stops it.\n",
        _part("gRPC", serving.grpc_address),
        _part("HTTP", f"http://{serving.http_address}  (/predict /health /ready /metrics /docs)"),
        _part("MLflow", settings.mlflow_tracking_uri),
        _part("Prefect", settings.prefect_api_url.removesuffix("/api")),
        _part(
            "PostgreSQL",
            f"{settings.postgres_host}:{settings.postgres_port}, user {settings.postgres_user}, "
            f"database {settings.postgres_db},",
            f"password in {running.password_file}",
        ),
        _part("Logs", str(running.logs)),
        "",
        f"""  grpcurl -plaintext -d '{{"entity_id": "{entity_id}"}}' {serving.grpc_address} \\""",
        "      espalier.prediction.v1.PredictionService/Predict",
        "  curl -H 'Content-Type: application/json' \\",
        f"""      -d '{{"{key}": "{entity_id}"}}' http://{serving.http_address}/predict""",
    ]
    return "\n".join(parts) + "\n"


def next_steps(project: str) -> str:
    """What to do after a first run."""
    return f"""Next:
  ./pants quickstart --keep      leave the servers running and look around
  ./pants quickstart --full      all of the data instead of the sample
  ./pants test ::                run all tests
  ./pants package ::             build the programs into dist/
  src/python/{project}/project.py    what this product declares
  docs/architecture.md           how the parts work together
"""


def _part(title: str, *lines: str) -> str:
    """One titled part, each of its lines wrapped; what has no blank stays whole, to be copied."""
    wrapped = [
        textwrap.fill(
            line,
            COLUMNS,
            initial_indent=_INDENT,
            subsequent_indent=_INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines
    ]
    return f"  {title:<11}" + "\n".join(wrapped).removeprefix(_INDENT)


def _model(model: Champion) -> list[str]:
    metrics, origin = model.manifest.metrics, model.manifest.provenance
    quality = (
        f"ROC-AUC {metrics['roc_auc']:.3f} (baseline {metrics['baseline_roc_auc']:.3f}), "
        f"PR-AUC {metrics['pr_auc']:.3f} (baseline {metrics['baseline_pr_auc']:.3f})"
    )
    where = f"on the labels of {origin['validation_time']}, unseen:"
    return [f"version {model.version}, champion; {where}", quality]


def _prediction(project: Project, predicted: Predicted) -> list[str]:
    grpc, http = predicted.grpc, predicted.http
    answers = (
        f"{grpc.prediction:.0f}, score {grpc.score:.4f} (gRPC); "
        f"{http['prediction']:.0f}, score {http['score']:.4f} (HTTP)"
    )
    return [
        f"{project.entity.name} {grpc.entity_id}: {answers}",
        f"1 means: {project.label.positive_means}",
    ]


def _drift(drift: Mapping[str, Any]) -> list[str]:
    which = f": {', '.join(drift['drifted'])}" if drift["drifted"] else ""
    verdict = "yes" if drift["drift"] else "no"
    lines = [f"{verdict}; {drift['share']:.0%} of the features moved{which}"]
    if drift["target drift"] is not None:
        lines.append("the labels moved" if drift["target drift"] else "the labels did not move")
    if "windows" in drift:
        lines.append(f"windows: {drift['windows']}")
    return [*lines, str(drift["html"])]
