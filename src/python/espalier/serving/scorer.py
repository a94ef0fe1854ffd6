"""Scores feature rows with ONNX Runtime, and tells what the scores say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from espalier.errors import BadData, ScoreInvalid
from espalier.registry.manifest import ModelManifest

INPUT, PROBABILITIES, VALUE = "features", "probabilities", "value"
# How far the probabilities of a row may be from 1 in sum.
_SUM_TOLERANCE = 1e-3


class Scorer(Protocol):
    """A model over rows of features."""

    def run(self, matrix: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """The scores for rows [n, f], unchecked; thread-safe.

        These are the positive class's probability [n], of several classes the probabilities [n, k],
        or of a number the value [n].
        """


class OnnxScorer:
    """A model file with one input `features`, float32 [n, f].

    A classifier has an output `probabilities` [n, k], a regressor one named `value` [n, 1].
    """

    def __init__(
        self, path: Path, n_features: int, task: str = "binary", n_classes: int = 2
    ) -> None:
        """Load a model.

        Raises:
            BadData: the file is not a model with these inputs and outputs.
        """
        self._output = VALUE if task == "regression" else PROBABILITIES
        # Which of the output's columns are given; of a binary model the positive class's alone.
        self._column = {"binary": 1, "regression": 0}.get(task)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One row takes tens of microseconds: threads would cost more than they give.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise BadData(
                f"{path.name} is not an ONNX model that can be loaded: {error}"
            ) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [i.name for i in inputs] != [INPUT] or self._output not in [o.name for o in outputs]:
            raise BadData(
                f"{path.name} has inputs {[i.name for i in inputs]} and outputs "
                f"{[o.name for o in outputs]}",
                fix=f"convert it with one input {INPUT!r} and an output {self._output!r} "
                "(zipmap off)",
            )
        width = inputs[0].shape[-1]
        if isinstance(width, int) and width != n_features:
            raise BadData(f"{path.name} takes {width} features, its manifest names {n_features}")
        given = next(o.shape[-1] for o in outputs if o.name == self._output)
        if task == "multiclass" and isinstance(given, int) and given != n_classes:
            raise BadData(f"{path.name} gives {given} classes, its manifest names {n_classes}")

    def run(self, matrix: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """The scores for rows [n, f], unchecked, as `Scorer` says; thread-safe."""
        # What is too large for the model's float32 is infinite to it, which is no news for a log.
        with np.errstate(over="ignore"):
            features = np.ascontiguousarray(matrix, dtype=np.float32)
        (found,) = self._session.run([self._output], {INPUT: features})
        columns = np.asarray(found)
        if self._column is not None:
            columns = columns[:, self._column]
        scores: NDArray[np.float64] = columns.astype(np.float64)
        return scores


@dataclass(frozen=True, eq=False)
class Answers:
    """What scores say: for each row `score` and `prediction` [n] as `Prediction` has them."""

    score: NDArray[np.float64]
    prediction: NDArray[np.float64]


def answers(manifest: ModelManifest, scores: NDArray[np.float64]) -> Answers:
    """What valid scores say, [n] or of several classes [n, k]; those of rows without any are []."""
    if manifest.task == "regression":
        return Answers(scores, scores)
    if manifest.task == "multiclass":
        scores = scores.reshape(-1, len(manifest.classes))
        place = scores.argmax(axis=1)
        return Answers(scores[np.arange(len(scores)), place], place.astype(np.float64))
    return Answers(scores, (scores >= manifest.threshold).astype(np.float64))


def checked(scores: NDArray[np.float64], task: str = "binary") -> NDArray[np.float64]:
    """The scores themselves, [n] or [n, k].

    Raises:
        ScoreInvalid: one of them is not what `valid` asks for.
    """
    wrong = ~valid(scores, task)
    if wrong.any():
        raise ScoreInvalid(
            f"{int(wrong.sum())} of {len(scores)} scores {_WRONG[task]}, "
            f"the first is {scores[wrong][0]}",
            fix="roll the model back",
        )
    return scores


_WRONG = {
    "binary": "are not in 0 to 1",
    "multiclass": "are not in 0 to 1 with a sum of 1",
    "regression": "are not finite",
}


def valid(scores: NDArray[np.float64], task: str = "binary") -> NDArray[np.bool_]:
    """Which rows [n] have scores that can be answered.

    A number must be finite. A probability must be in 0 to 1, and so not NaN; those of several
    classes [n, k] must also be 1 in sum, to 1e-3.
    """
    if task == "regression":
        return np.isfinite(scores)
    inside = (scores >= 0.0) & (scores <= 1.0)
    if scores.ndim == 1:
        return inside
    whole = np.abs(scores.sum(axis=1) - 1.0) <= _SUM_TOLERANCE
    return np.asarray(inside.all(axis=1) & whole)
