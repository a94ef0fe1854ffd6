"""The model file that the server will run, and how to score with it here as the server does."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from espalier.registry.manifest import ONNX, SKOPS
from espalier.training import fitting, onnx_export, skops_file
from espalier.training.evaluate import Floats
from espalier.training.onnx_export import NotConvertibleError, Parity, Score


@dataclass(frozen=True)
class ServedModel:
    """A model's file: `file` is its name and so its format, `content` its bytes.

    `parity` compares it with scikit-learn; it is None when the file is scikit-learn's own, and
    `why_not_onnx` says then what does not convert.
    """

    file: str
    content: bytes
    parity: Parity | None = None
    why_not_onnx: str = ""

    @property
    def digest(self) -> str:
        """The sha256 of the file."""
        return hashlib.sha256(self.content).hexdigest()


def make(estimator: Any, rows: Floats, *, name: str, seed: int) -> ServedModel:
    """The file of a fitted estimator: ONNX when all of it converts, otherwise skops.

    Args:
        estimator: The classifier or regressor.
        rows: The validation rows [n, f], on which ONNX is compared with scikit-learn: as they are,
            and with NaN and infinities planted.
        name: The ONNX graph's name.
        seed: Says where they are planted.

    Raises:
        CheckRefused: it converts neither to ONNX nor to a skops file that loading would trust.
    """
    planted = onnx_export.planted(rows, seed)
    try:
        content = onnx_export.to_onnx(estimator, onnx_export.finite_row(rows), name=name)
    except NotConvertibleError as error:
        return ServedModel(SKOPS, skops_bytes(estimator), why_not_onnx=str(error))
    return ServedModel(ONNX, content, onnx_export.compare(content, estimator, planted))


def skops_bytes(estimator: Any) -> bytes:
    """The estimator as a skops file.

    Raises:
        CheckRefused: it holds a type that loading would not trust.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / SKOPS
        skops_file.save(estimator, path)
        return path.read_bytes()


def open_score(file: str, content: bytes) -> Score:
    """A function from rows [n, f] to scores, by the file as the server reads it.

    Scores are as `fitting.scores_of` gives them.

    Raises:
        BadData: a skops file that is none, or holds types that are not trusted.
    """
    if file == ONNX:
        return onnx_export.open_score(content)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / SKOPS
        path.write_bytes(content)
        estimator = skops_file.load(path)
    threads = ThreadpoolController()

    def run(features: npt.ArrayLike) -> Floats:
        rows = np.asarray(features, dtype=np.float32).astype(np.float64)
        # As the server does, whose own threads these would take turns with.
        with threads.limit(limits=1):
            return fitting.scores_of(estimator, rows)

    return run
