"""Logs a training run to MLflow and registers its model: the one module that imports mlflow.

A version's folder is an MLflow model of the onnx flavor, with our manifest and the skops file
beside it. Nothing in it is a pickle. Aliases are set by `promotion` alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from espalier.errors import DependencyUnreachable
from espalier.registry.manifest import FILES_TAG, MANIFEST, ONNX, SKOPS, ModelManifest
from espalier.registry.rest import MlflowRest
from espalier.registry.trusted import TRUSTED

# mlflow reads these when it is imported or used. A server that is down is found out in seconds.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}
_PARAM_LENGTH, _NOTE_LENGTH = 500, 7500
# mlflow keeps 36 characters of a dataset's digest; the whole is among the manifest's provenance.
_DATASET_DIGEST_LENGTH = 32


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a model was trained on, as the run shows it. `source` says where to find it again."""

    name: str
    digest: str
    source: Mapping[str, Any]
    columns: Mapping[str, str]
    rows: int


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trained model with all that is known of it.

    `onnx` and `skops` are the model's files; `manifest.file` is one of their names, and `onnx` is
    None for a model without an ONNX form. `documents` are
    texts that stand beside them, by file name. `requirements` are the packages, as `name==version`,
    that scoring the model takes.
    """

    manifest: ModelManifest
    onnx: Path | None
    skops: Path
    data: TrainingData
    params: Mapping[str, object]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    requirements: Sequence[str]
    figures: Sequence[Path] = field(default=())
    documents: Mapping[str, str] = field(default_factory=dict)
    validation: TrainingData | None = None


@dataclass(frozen=True)
class Registered:
    """A model version and the run that made it."""

    version: str
    run_id: str


def log_and_register(tracking_uri: str, candidate: Candidate) -> Registered:
    """Log one run in the experiment named as the project, and register its model under that name.

    The run is marked as failed when anything of it cannot be logged, and no version appears then.

    Raises:
        DependencyUnreachable: MLflow does not answer, or refuses.
    """
    manifest = candidate.manifest
    # Asks first over the light client, which gives up at once when there is no server.
    with MlflowRest(tracking_uri) as rest:
        rest.alias(manifest.project)
    with _mlflow(tracking_uri) as client:
        experiment_id = _experiment(client, manifest.project)
        run = client.create_run(
            experiment_id, tags=dict(candidate.tags), run_name=candidate.tags.get("as_of")
        )
        run_id: str = run.info.run_id
        try:
            _log_run(client, run_id, candidate)
            logged = _log_model(client, experiment_id, run_id, candidate)
            version = _register(client, run_id, logged, candidate)
        except BaseException:
            with suppress(Exception):
                client.set_terminated(run_id, status="FAILED")
            raise
        client.set_terminated(run_id, status="FINISHED")
    return Registered(version, run_id)


def _log_run(client: Any, run_id: str, candidate: Candidate) -> None:
    from mlflow import entities

    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[entities.Metric(k, v, now, 0) for k, v in candidate.metrics.items()],
        params=[entities.Param(k, str(v)[:_PARAM_LENGTH]) for k, v in candidate.params.items()],
    )
    inputs = [_input(candidate.data, "training")]
    if candidate.validation is not None:
        inputs.append(_input(candidate.validation, "validation"))
    client.log_inputs(run_id, inputs)
    if card := candidate.documents.get("model_card.md"):
        # What MLflow shows as the run's description.
        client.set_tag(run_id, "mlflow.note.content", card[:_NOTE_LENGTH])
    for figure in candidate.figures:
        client.log_artifact(run_id, str(figure), "plots")


def _input(data: TrainingData, use: str) -> Any:
    """A dataset as MLflow's run shows it, with what it was used for."""
    from mlflow import entities

    dataset = entities.Dataset(
        name=data.name,
        digest=data.digest[:_DATASET_DIGEST_LENGTH],
        source_type="postgresql",
        source=json.dumps(dict(data.source), sort_keys=True),
        schema=json.dumps(
            {"mlflow_colspec": [{"name": k, "type": v} for k, v in data.columns.items()]}
        ),
        profile=json.dumps({"num_rows": data.rows}),
    )
    return entities.DatasetInput(dataset, [entities.InputTag("mlflow.data.context", use)])


@dataclass(frozen=True)
class _Logged:
    """An uploaded model: MLflow's id of it, and the sha256 of our files in it."""

    model_id: str
    files: Mapping[str, str]


def _log_model(client: Any, experiment_id: str, run_id: str, candidate: Candidate) -> _Logged:
    """Upload the model's folder."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    model = client.create_logged_model(
        experiment_id,
        name=candidate.manifest.project,
        source_run_id=run_id,
        tags=dict(candidate.tags),
        params={"threshold": str(candidate.manifest.threshold)},
        model_type=Path(candidate.manifest.file).suffix.removeprefix("."),
    )
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            _write_model(folder, model, run_id, candidate)
            ours = {MANIFEST, SKOPS, candidate.manifest.file, *candidate.documents}
            files = {
                name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
                for name in sorted(ours)
            }
            client.log_model_artifacts(model.model_id, str(folder))
    except BaseException:
        with suppress(Exception):
            client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
        raise
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return _Logged(model.model_id, files)


def _write_model(folder: Path, logged: Any, run_id: str, candidate: Candidate) -> None:
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    manifest = candidate.manifest
    width = len(manifest.features)
    float32 = np.dtype(np.float32)
    outputs: list[Any] = [TensorSpec(float32, (-1, 1), "value")]
    if manifest.task != "regression":
        outputs = [
            TensorSpec(np.dtype(np.int64), (-1,), "label"),
            TensorSpec(float32, (-1, len(manifest.classes) or 2), "probabilities"),
        ]
    signature = ModelSignature(
        inputs=Schema([TensorSpec(float32, (-1, width), "features")]),
        outputs=Schema(outputs),
    )
    example = np.array(manifest.golden_rows[:2], dtype=np.float32).reshape(-1, width)
    model = Model(
        artifact_path=logged.artifact_location,
        run_id=run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
        metadata={"features": list(manifest.features), "view": manifest.view},
    )
    if candidate.onnx is None:
        _write_skops_flavor(folder, model, signature, example)
    else:
        _write_onnx_flavor(folder, model, signature, example, candidate)
        # Byte for byte the file whose digest the manifest holds.
        shutil.copyfile(candidate.onnx, folder / ONNX)
    shutil.copyfile(candidate.skops, folder / SKOPS)
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    for name, text in candidate.documents.items():
        (folder / name).write_text(text, encoding="utf-8")


def _write_onnx_flavor(
    folder: Path, model: Any, signature: Any, example: Any, candidate: Candidate
) -> None:
    import mlflow.onnx
    import onnx

    mlflow.onnx.save_model(
        onnx.load(str(candidate.onnx)),
        str(folder),
        mlflow_model=model,
        signature=signature,
        input_example={"features": example},
        # Given, since to infer them MLflow would start a process that imports everything.
        pip_requirements=list(candidate.requirements),
        onnx_execution_providers=["CPUExecutionProvider"],
        metadata=model.metadata,
        save_as_external_data=False,
    )


def _write_skops_flavor(folder: Path, model: Any, signature: Any, example: Any) -> None:
    """What `mlflow.sklearn.save_model` writes in its skops format, around a file that is there."""
    import sklearn
    from mlflow.models.utils import _save_example

    folder.mkdir()
    model.signature = signature
    _save_example(model, example, str(folder))
    model.add_flavor(
        "sklearn",
        # The flavor's name for the model's file of whatever format.
        pickled_model=SKOPS,
        sklearn_version=sklearn.__version__,
        serialization_format="skops",
        code=None,
        skops_trusted_types=list(TRUSTED),
    )
    model.save(str(folder / "MLmodel"))


def _register(client: Any, run_id: str, logged: _Logged, candidate: Candidate) -> str:
    from mlflow.exceptions import RestException

    project = candidate.manifest.project
    try:
        client.create_registered_model(project)
    except RestException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        project,
        f"models:/{logged.model_id}",
        run_id=run_id,
        tags={**candidate.tags, FILES_TAG: json.dumps(logged.files, sort_keys=True)},
        model_id=logged.model_id,
    )
    return str(version.version)


def _experiment(client: Any, name: str) -> str:
    from mlflow.exceptions import RestException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except RestException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


@contextmanager
def _mlflow(tracking_uri: str) -> Iterator[Any]:
    """An `MlflowClient` that prints nothing, with its errors turned into ours."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import requests
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    _load_request_headers()
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        yield MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    except (MlflowException, requests.RequestException) as error:
        host = urlsplit(tracking_uri)
        first_line = str(error).strip().split("\n")[0][:300]
        raise DependencyUnreachable(
            f"MLflow at {host.hostname}:{host.port}: {first_line}",
            fix="see the MLflow server's log",
        ) from error


def _load_request_headers() -> None:
    """Load mlflow's plug-ins for request headers, but for the one of Feast.

    mlflow loads all that are installed at its first request. Feast's, which serves its own use of
    MLflow as a data source, imports the whole of Feast, which takes longer than a training run.
    """
    from mlflow.utils import plugins

    original = plugins._get_entry_points  # noqa: SLF001  # mlflow has no setting for it

    def without_feast(group: str) -> list[Any]:
        return [entry for entry in original(group) if not entry.value.startswith("feast.")]

    plugins._get_entry_points = without_feast  # noqa: SLF001  # as above
    try:
        import mlflow.tracking.request_header.registry  # noqa: F401  # for its effect
    finally:
        plugins._get_entry_points = original  # noqa: SLF001  # as above
