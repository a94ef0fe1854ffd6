"""Loads a model version from its folder, and proves that it scores as it did in training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espalier.errors import BadData
from espalier.registry.manifest import ONNX, SKOPS, ModelManifest
from espalier.serving.prediction import ModelVersion
from espalier.serving.reader import FeatureSource
from espalier.serving.scorer import OnnxScorer, Scorer, checked


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, ready to score."""

    identity: ModelVersion
    manifest: ModelManifest
    scorer: Scorer

    @property
    def source(self) -> FeatureSource:
        """Where its features are read from."""
        m = self.manifest
        return FeatureSource(m.project, m.view, m.join_key, m.features)


def load(
    name: str, version: str, *, folder: Path, manifest: ModelManifest, warm_up_rows: int = 256
) -> LoadedModel:
    """Load the model file in `folder`, run it once at full size, and check the golden rows.

    Raises:
        BadData: the file's digest is not the manifest's, it cannot be loaded, or it does not give
            the golden scores again.
    """
    identity = ModelVersion(name, version)
    what = f"model {name} version {version}"
    if manifest.file not in (ONNX, SKOPS):
        raise BadData(f"{what} is {manifest.file!r}", fix=f"this server loads {ONNX} and {SKOPS}")
    path = folder / manifest.file
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BadData(f"{what}: {path.name} cannot be read: {error.strerror}") from error
    if digest != manifest.digest:
        raise BadData(
            f"{what}: {path.name} has sha256 {digest[:12]}, its manifest says "
            f"{manifest.digest[:12]}",
            fix="register it again by the training flow",
        )
    width = len(manifest.features)
    scorer = open_scorer(path, width, manifest.task, len(manifest.classes))
    scorer.run(np.zeros((warm_up_rows, width)))
    _check_golden(what, manifest, scorer)
    return LoadedModel(identity, manifest, scorer)


def open_scorer(path: Path, n_features: int, task: str = "binary", n_classes: int = 0) -> Scorer:
    """The scorer of a model file, by its name; `task` and `n_classes` as its manifest has them.

    Raises:
        BadData: the file cannot be loaded, or not by this program.
    """
    n_classes = n_classes or 2
    if path.name == ONNX:
        return OnnxScorer(path, n_features, task, n_classes)
    # The rare case, whose module looks for libraries that most servers do not carry.
    from espalier.serving.skops_scorer import SkopsScorer

    return SkopsScorer(path, n_features, task, n_classes)


def _check_golden(what: str, manifest: ModelManifest, scorer: Scorer) -> None:
    if len(manifest.golden_rows) != len(manifest.golden_scores):
        raise BadData(f"{what}: its manifest has golden rows without scores, or the reverse")
    if not manifest.golden_rows:
        return
    rows = np.array(manifest.golden_rows, dtype=np.float64)
    if rows.shape != (len(manifest.golden_rows), len(manifest.features)):
        raise BadData(f"{what}: a golden row does not have {len(manifest.features)} values")
    found, golden = checked(scorer.run(rows), manifest.task), np.array(manifest.golden_scores)
    if found.shape != golden.shape:
        raise BadData(f"{what}: a golden score does not have a probability for each class")
    worst = float(np.abs(found - golden).max())
    if not worst <= manifest.golden_tolerance:
        raise BadData(
            f"{what} scores a golden row {worst:.2g} off, more than {manifest.golden_tolerance:g}",
            fix="compare the ONNX Runtime here with the one in training",
        )
