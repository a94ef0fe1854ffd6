"""What a model version carries beside its weights: all that a server needs to serve it.

Written by training as `manifest.json` next to `model.onnx` (or `model.skops`), read by the server
and by batch scoring. Free of any library, so that the server's PEX stays small.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from espalier.errors import BadData

MANIFEST = "manifest.json"
ONNX = "model.onnx"
SKOPS = "model.skops"
PROVENANCE = "provenance.json"
GATE = "gate.json"
CHAMPION = "champion"
# How far a probability may be off where one file is to score as another.
TOLERANCE = 1e-5
_TASKS = ("binary", "multiclass", "regression")
# Where a rollback would go back to.
PREVIOUS = "previous"
# The version tag with the sha256 of each of our files. Who can write to the artifact store alone
# cannot change it.
FILES_TAG = "files"
# The version tag that names what asked for the training, so that it is not done twice.
ASKED_BY = "asked_by"


@dataclass(frozen=True, kw_only=True)
class ModelManifest:
    """A model's inputs, decision and origin.

    `features` are in the model's column order. `task` is a `Task`'s value; `classes` are those of a
    multiclass model in the order of its probabilities, and only a binary one uses `threshold`.
    `digest` is the sha256 of the model file named `file`. `golden_rows` are rows of the validation
    set with the scores that they must give again, to `golden_tolerance`, when the model is loaded:
    a number each, of several classes a tuple of their probabilities.
    """

    project: str
    join_key: str
    view: str
    features: tuple[str, ...]
    feature_types: tuple[str, ...]
    ttl_seconds: float
    threshold: float
    file: str
    digest: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    golden_rows: tuple[tuple[float | None, ...], ...] = ()
    golden_scores: tuple[float | tuple[float, ...], ...] = ()
    task: str = "binary"
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a kind of model that this release does not know."""
        if self.task not in _TASKS or bool(self.classes) != (self.task == "multiclass"):
            raise ValueError(f"task {self.task!r} with {len(self.classes)} classes")

    @property
    def golden_tolerance(self) -> float:
        """How far a golden score may be off: 1e-5, of a number's largest golden score."""
        if self.task != "regression":
            return TOLERANCE
        numbers = (score for score in self.golden_scores if not isinstance(score, tuple))
        return TOLERANCE * max(map(abs, numbers), default=0.0)

    def to_json(self) -> str:
        """The manifest as stored."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelManifest:
        """The manifest that was stored; raises BadData when it is not one."""
        try:
            values: dict[str, Any] = json.loads(text)
            values["features"] = tuple(values["features"])
            values["feature_types"] = tuple(values["feature_types"])
            values["golden_rows"] = tuple(tuple(row) for row in values["golden_rows"])
            values["golden_scores"] = tuple(
                tuple(score) if isinstance(score, list) else score
                for score in values["golden_scores"]
            )
            # Manifests of earlier releases have neither and are of binary models.
            values["classes"] = tuple(values.get("classes", ()))
            return cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise BadData(
                f"{MANIFEST} of the model is not valid: {error}",
                fix="register the model again by the training flow",
            ) from error
