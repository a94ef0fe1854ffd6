"""What the prediction server expects of a model, compared with what the model takes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from espalier.project import Project, Task
from espalier.registry.manifest import ONNX, ModelManifest
from espalier.training import onnx_export
from espalier.training.evaluate import Floats
from espalier.training.onnx_export import INPUT, LABEL, PROBABILITIES, VALUE
from espalier.training.served import ServedModel


def golden_matrix(manifest: ModelManifest) -> Floats:
    """The manifest's golden rows [n, f], NaN for null."""
    rows = np.array(manifest.golden_rows, dtype=np.float64)
    return rows.reshape(-1, len(manifest.features))


def differences(
    project: Project, manifest: ModelManifest, model: ServedModel, online: Mapping[str, str]
) -> list[str]:
    """What does not fit, in words: manifest against view, file against manifest, online columns.

    Args:
        project: The declaration.
        manifest: The model's.
        model: The file.
        online: The online table's columns with their PostgreSQL types; empty when there is none.
    """
    view, table = project.view, project.table(project.view.table)
    wrong = []
    if manifest.features != view.features:
        wrong.append(f"the manifest's features are not those of view {view.name} in their order")
    declared = {name: table.column(name).type.value for name in view.features}
    for name, kind in zip(manifest.features, manifest.feature_types, strict=True):
        if declared.get(name) != kind:
            wrong.append(f"{name} is {kind} in the manifest and {declared.get(name)} in the view")
        if online and online.get(name) != kind:
            wrong.append(f"{name} is {kind} in the manifest and {online.get(name)} online")
    if (manifest.join_key, manifest.view) != (project.entity.join_key, view.name):
        wrong.append("the manifest names another view or join key")
    if (manifest.task, manifest.classes) != (project.task.value, project.label.classes):
        wrong.append("the manifest names another task or other classes")
    if model.file == ONNX:
        inputs, outputs = onnx_export.ends(model.content)
        if inputs != {INPUT: len(view.features)}:
            wrong.append(f"the graph takes {inputs}, the server gives {len(view.features)} columns")
        wanted = {VALUE} if project.task is Task.REGRESSION else {LABEL, PROBABILITIES}
        if missing := wanted - outputs:
            wrong.append(f"the graph does not give {', '.join(sorted(missing))}")
    return wrong
