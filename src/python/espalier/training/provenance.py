"""Where a model comes from: program, libraries, declaration, snapshots, data and settings.

One document tells all of it, `provenance.json` beside the model; its chief values are tags of the
version too. `reproduce` makes the document again and compares.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from datetime import date, timedelta
from enum import Enum
from importlib import import_module
from importlib.metadata import version as package_version
from typing import Any

import pandas as pd

from espalier.contract import contract_digest
from espalier.policies import Validation
from espalier.postgres.connect import Connection
from espalier.project import Project
from espalier.training.build import Built
from espalier.training.evaluate import Floats
from espalier.training.program import Program
from espalier.training.split import Split

FORMAT = 1
_TAG_LENGTH = 5000
_PACKAGES = (
    "joblib",
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
# What later releases made declarable, with its default: left out where it is not declared, so that
# an unchanged declaration stays equal to what earlier releases recorded.
_LATER: dict[str, Any] = {"validation": Validation(), "classes": ()}
# What of a declaration does not reach into the model; the tables have their own digest.
_NOT_TRAINING = frozenset(
    {"description", "tables", "calendar", "monitoring", "retraining", "full_data"}
)


def known_snapshots(connection: Connection, project: Project, as_of: date) -> list[dict[str, Any]]:
    """The snapshots whose rows can have been known on that day, oldest first.

    These are those of that day and before, and the backfill, whose rows were known as they
    happened.
    """
    found = connection.execute(
        "SELECT id, as_of, revision, digest FROM espalier.snapshots "
        "WHERE project = %(project)s AND (as_of <= %(as_of)s OR as_of = "
        "(SELECT as_of FROM espalier.snapshots WHERE project = %(project)s ORDER BY id LIMIT 1)) "
        "ORDER BY as_of, revision",
        {"project": project.name, "as_of": as_of},
    ).fetchall()
    return [
        {"id": id_, "as_of": day.isoformat(), "revision": revision, "digest": digest}
        for id_, day, revision, digest in found
    ]


def document(
    project: Project,
    *,
    as_of: date,
    who: str,
    snapshots: list[dict[str, Any]],
    split: Split,
    built: Built,
    program: Program,
) -> dict[str, Any]:
    """All of it, as JSON values."""
    return {
        "format": FORMAT,
        "project": project.name,
        "as_of": as_of.isoformat(),
        "who": who,
        "program": asdict(program),
        "environment": environment(),
        "contract_digest": contract_digest(project.tables),
        "view_digest": view_digest(project),
        "declaration": declaration(project),
        "seed": project.seed,
        "settings": dict(built.settings),
        "snapshots": snapshots,
        "validation": split_by(project),
        "data": {
            "train_digest": data_digest(project, split.train),
            "train_rows": len(split.train),
            "train_from": split.train_times[0].isoformat(),
            "train_to": split.train_times[-1].isoformat(),
            "validation_digest": data_digest(project, split.validation),
            "validation_rows": len(split.validation),
            "validation_time": split.validation_time.isoformat(),
        },
        "model": {
            "file": built.served.file,
            "digest": built.served.digest,
            "threshold": built.threshold,
            "scores_digest": scores_digest(built.scores),
            "metrics": canonical(built.metrics),
        },
    }


def text(found: Mapping[str, Any]) -> str:
    """The document as it is stored."""
    return json.dumps(found, indent=2, sort_keys=True) + "\n"


def tags(found: Mapping[str, Any]) -> dict[str, str]:
    """The chief values, as tags of the version and as the manifest's provenance."""
    program, data = found["program"], found["data"]
    newest = found["snapshots"][-1] if found["snapshots"] else {}
    told = {
        "as_of": found["as_of"],
        "who": found["who"],
        "seed": str(found["seed"]),
        "git_commit": program["git_commit"],
        "git_dirty": program["git_dirty"],
        "lock_digest": program["lock_digest"],
        "pex_sha256": program["pex_sha256"],
        "contract_digest": found["contract_digest"],
        "view_digest": found["view_digest"],
        "snapshot_id": str(newest.get("id", "")),
        "snapshot_digest": str(newest.get("digest", "")),
        "snapshots": _told(found["snapshots"]),
        "data_digest": data["train_digest"],
        "train_from": data["train_from"],
        "train_to": data["train_to"],
        "validation_time": data["validation_time"],
        "validation": found["validation"] if found["validation"] != "time" else "",
        "scores_digest": found["model"]["scores_digest"],
        "python": found["environment"]["python"],
        "platform": found["environment"]["platform"],
        **{f"lib.{name}": said for name, said in found["environment"]["libraries"].items()},
    }
    # MLflow takes no empty value for some of its tags.
    return {name: value for name, value in told.items() if value}


def environment() -> dict[str, Any]:
    """What runs underneath; `blas` names the routines that OpenBLAS chose for this processor."""
    blas = import_module("threadpoolctl").threadpool_info()  # scikit-learn brings it
    chosen = {
        f"{one['internal_api']} {one['version']} {one.get('architecture', '')}".strip()
        for one in blas
        if one["user_api"] == "blas"
    }
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "blas": ", ".join(sorted(chosen)),
        "libraries": {name: package_version(name) for name in _PACKAGES},
    }


def view_digest(project: Project) -> str:
    """The sha256 of the feature view's declaration with its entity and the features' types."""
    table = project.table(project.view.table)
    return _json_digest(
        {
            "entity": project.entity.join_key,
            "view": canonical(project.view),
            "types": {name: table.column(name).type.value for name in project.view.features},
            "event_time": project.event_time,
        }
    )


def declaration(project: Project) -> dict[str, Any]:
    """What the product declares of training, as JSON values."""
    return {
        name: canonical(value)
        for name, value in _declared(project).items()
        if name not in _NOT_TRAINING
    }


def split_by(project: Project) -> str:
    """How validation rows are chosen, in words; equal words choose equal entities."""
    by = project.validation
    if by.by == "time":
        return by.by
    return f"entity, a share of {by.share:g} by seed {project.seed}"


def _declared(value: Any) -> dict[str, Any]:
    """A declared value's fields by name, without what is declared only since a later release."""
    found = {item.name: getattr(value, item.name) for item in fields(value)}
    return {k: v for k, v in found.items() if k not in _LATER or v != _LATER[k]}


def canonical(value: Any) -> Any:
    """A declared value as JSON values: a type's fields by name, a span in seconds."""
    plain = value
    match value:
        case list() | tuple():
            plain = [canonical(one) for one in value]
        case Mapping():
            plain = {str(name): canonical(one) for name, one in value.items()}
        case Enum():
            plain = value.value
        case timedelta():
            plain = value.total_seconds()
        case date():
            plain = value.isoformat()
        case float() if not math.isfinite(value):
            # JSON has no infinity.
            plain = str(value)
        case _ if is_dataclass(value) and not isinstance(value, type):
            plain = {name: canonical(one) for name, one in _declared(value).items()}
    return plain


def data_digest(project: Project, rows: pd.DataFrame) -> str:
    """The sha256 of rows of a training set, in their order."""
    columns = [project.entity.join_key, "label_time", "label", *project.view.features]
    hashes = pd.util.hash_pandas_object(rows[columns], index=False).to_numpy()
    return hashlib.sha256(hashes.tobytes()).hexdigest()


def scores_digest(scores: Floats) -> str:
    """The sha256 of scores [n], bit for bit."""
    return hashlib.sha256(scores.astype("<f8").tobytes()).hexdigest()


def _told(snapshots: list[dict[str, Any]]) -> str:
    """Each snapshot's id and the start of its digest; `provenance.json` has the whole."""
    return " ".join(f"{one['id']}:{one['digest'][:12]}" for one in snapshots)[:_TAG_LENGTH]


def _json_digest(value: Any) -> str:
    plain = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()
