"""What quickstart tells at its end, in at most 80 columns where the facts allow."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from espalier.cli.console import COLUMNS
from espalier.cli.loop import Predicted
from espalier.cli.stack import Serving, Stack
from espalier.cli.tables import steps
from espalier.project import Project, Task
from espalier.registry.download import Champion
from espalier.training.evaluate import title

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
        _part("Model", *_model(project, model)),
        _part("Prediction", *_prediction(project, model, predicted)),
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


def next_steps(project: Project, *, named: bool) -> str:
    """What to do after a first run.

    Args:
        project: The product.
        named: Whether commands must name it.
    """
    again = f"./pants quickstart{f' --project {project.name}' if named else ''}"
    declared = f"src/python/{project.name}/project.py"
    rows = [
        (f"{again} --keep", "leave the servers running and look around"),
        (f"{again} --full", "all of the data instead of the sample"),
        ("./pants new NAME --from FILE", "begin a product of your own data"),
        ("./pants test ::", "run all tests"),
        ("./pants package ::", "build the programs into dist/"),
        (declared, "what this product declares"),
        ("docs/index.md", "guides, and how the parts work together"),
    ]
    if project.full_data is None:
        del rows[1]
    return f"Next:\n{steps(rows)}\n"


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


def _model(project: Project, model: Champion) -> list[str]:
    metrics, origin = model.manifest.metrics, model.manifest.provenance
    quality = ", ".join(
        f"{title(name)} {_number(name, metrics[name])} "
        f"(baseline {_number(name, metrics[f'baseline_{name}'])})"
        for name in _TOLD[project.task]
    )
    where = f"on the labels of {origin['validation_time']}, unseen:"
    if project.validation.by == "entity":
        where = f"on {project.validation.share:.0%} of the entities, unseen:"
    return [f"version {model.version}, champion; {where}", quality]


_TOLD = {
    Task.BINARY: ("roc_auc", "pr_auc"),
    Task.MULTICLASS: ("roc_auc", "accuracy"),
    Task.REGRESSION: ("r2", "rmse"),
}


def _number(metric: str, value: float) -> str:
    """An error has the label's unit, so it may be of any size."""
    return f"{value:.4g}" if metric == "rmse" else f"{value:.3f}"


def _prediction(project: Project, model: Champion, predicted: Predicted) -> list[str]:
    grpc, http = predicted.grpc, predicted.http
    answers = "; ".join(
        f"{_answer(project, model, prediction, score)} ({transport})"
        for transport, prediction, score in (
            ("gRPC", grpc.prediction, grpc.score),
            ("HTTP", http["prediction"], http["score"]),
        )
    )
    lines = [f"{project.entity.name} {grpc.entity_id}: {answers}"]
    if project.task is Task.BINARY:
        lines.append(f"1 means: {project.label.positive_means}")
    return lines


def _answer(project: Project, model: Champion, prediction: float, score: float) -> str:
    match project.task:
        case Task.BINARY:
            return f"{prediction:.0f}, score {score:.4f}"
        case Task.MULTICLASS:
            return f"{model.manifest.classes[int(prediction)]}, probability {score:.4f}"
        case Task.REGRESSION:
            return f"{prediction:.6g}"


def _drift(drift: Mapping[str, Any]) -> list[str]:
    if nothing := drift.get("nothing to compare"):
        return [f"nothing to compare: {nothing}", *filter(None, [drift.get("html")])]
    which = f": {', '.join(drift['drifted'])}" if drift["drifted"] else ""
    verdict = "yes" if drift["drift"] else "no"
    lines = [f"{verdict}; {drift['share']:.0%} of the features moved{which}"]
    if drift["target drift"] is not None:
        lines.append("the labels moved" if drift["target drift"] else "the labels did not move")
    if "windows" in drift:
        lines.append(f"of the newest checks {drift['windows']}")
    return [*lines, str(drift["html"])]
