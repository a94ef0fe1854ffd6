"""Scores feature rows with scikit-learn, for a model that has no ONNX form.

Only a server that is built with `serve_with_sklearn=True` carries scikit-learn, so it is imported by
name here and never seen by the others.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from espalier.errors import BadData
from espalier.registry.trusted import TRUSTED


class SkopsScorer:
    """A fitted scikit-learn estimator in a skops file: milliseconds for a row, not microseconds."""

    def __init__(
        self, path: Path, n_features: int, task: str = "binary", n_classes: int = 2
    ) -> None:
        """Load a model; only types of `registry.trusted` and skops' own list are ever built.

        Raises:
            BadData: this program carries no scikit-learn, or the file is no skops file, holds
                another type, or is no such estimator over so many features.
        """
        try:
            io, threads = import_module("skops.io"), import_module("threadpoolctl")
        except ModuleNotFoundError as error:
            raise BadData(
                f"{path.name}: the model has no ONNX form and this program carries no scikit-learn",
                fix="declare ml_project(..., serve_with_sklearn=True) and build the server again",
            ) from error
        unknown: list[str] = []
        try:
            # Names what the file is made of without building any of it.
            unknown = sorted(set(io.get_untrusted_types(file=path)) - set(TRUSTED))
            self._estimator: Any = None if unknown else io.load(path, trusted=list(TRUSTED))
        except Exception as error:  # zipfile, json and skops raise what they like
            raise BadData(f"{path.name} is not a skops file ({type(error).__name__})") from error
        if unknown:
            raise BadData(
                f"{path.name} holds types that are not trusted: {', '.join(unknown)}",
                fix="do not load it; find out who wrote it",
            )
        width = getattr(self._estimator, "n_features_in_", n_features)
        classes, is_classifier = getattr(self._estimator, "classes_", ()), task != "regression"
        if not is_classifier and (len(classes) or not hasattr(self._estimator, "predict")):
            raise BadData(f"{path.name} is no regressor")
        if is_classifier and not (
            len(classes) == n_classes and hasattr(self._estimator, "predict_proba")
        ):
            count = "two" if n_classes == 2 else str(n_classes)
            raise BadData(f"{path.name} is no classifier of {count} classes")
        if width != n_features:
            raise BadData(f"{path.name} takes {width} features, its manifest names {n_features}")
        # A row is too small a work for threads, which would take turns with the server's own.
        self._threads: Any = threads.ThreadpoolController()
        self._task, self._n_classes = task, n_classes

    def run(self, matrix: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """The scores for rows [n, f], as `Scorer` says; thread-safe.

        NaN for a row that scikit-learn refuses, such as one with an infinity.
        """
        # Rounded as ONNX models get them, and as training did.
        features = np.asarray(matrix, dtype=np.float32).astype(np.float64)
        with self._threads.limit(limits=1):
            try:
                return self._scores(features)
            except ValueError:
                return np.array([self._one(row) for row in features], dtype=np.float64)

    def _scores(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._task == "regression":
            return np.asarray(self._estimator.predict(features), dtype=np.float64).reshape(-1)
        found = np.asarray(self._estimator.predict_proba(features), dtype=np.float64)
        return found[:, 1] if self._task == "binary" else found

    def _one(self, row: NDArray[np.float64]) -> NDArray[np.float64] | float:
        try:
            found: NDArray[np.float64] = self._scores(row[np.newaxis])[0]
        except ValueError:
            return np.full(self._n_classes, np.nan) if self._task == "multiclass" else np.nan
        return found
