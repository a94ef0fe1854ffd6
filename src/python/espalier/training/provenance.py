"""Where a model comes from: snapshots, data, seed and libraries."""

from __future__ import annotations

import hashlib
import platform
from datetime import date
from importlib.metadata import version as package_version
from typing import Any

import pandas as pd

from espalier.postgres.connect import Connection
from espalier.project import Project
from espalier.training.split import Split

_PACKAGES = (
    "mlflow",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "scikit-learn",
    "scipy",
    "skl2onnx",
    "skops",
)


def known_snapshots(connection: Connection, project: Project, as_of: date) -> list[dict[str, Any]]:
    """The snapshots that were known on that day, oldest first."""
    found = connection.execute(
        "SELECT id, as_of, revision, digest FROM espalier.snapshots "
        "WHERE project = %s AND as_of <= %s ORDER BY as_of, revision",
        [project.name, as_of],
    ).fetchall()
    return [
        {"id": id_, "as_of": day.isoformat(), "revision": revision, "digest": digest}
        for id_, day, revision, digest in found
    ]


def origin(
    project: Project,
    as_of: date,
    snapshots: list[dict[str, Any]],
    split: Split,
    who: str,
) -> dict[str, str]:
    """Where the model comes from, as tags."""
    columns = [project.entity.join_key, "label_time", "label", *project.view.features]
    hashes = pd.util.hash_pandas_object(split.train[columns], index=False).to_numpy()
    newest = snapshots[-1] if snapshots else {}
    return {
        "as_of": as_of.isoformat(),
        "who": who,
        "seed": str(project.seed),
        "snapshot_id": str(newest.get("id", "")),
        "snapshot_digest": str(newest.get("digest", "")),
        "data_digest": hashlib.sha256(hashes.tobytes()).hexdigest(),
        "train_from": split.train_times[0].isoformat(),
        "train_to": split.train_times[-1].isoformat(),
        "validation_time": split.validation_time.isoformat(),
        "python": platform.python_version(),
        **{f"lib.{name}": package_version(name) for name in _PACKAGES},
    }
