"""Scores feature rows with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from espalier.errors import BadData, ScoreInvalid

INPUT, OUTPUT = "features", "probabilities"


class Scorer(Protocol):
    """A binary classifier over rows of features."""

    def run(self, matrix: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """The positive class's probability [n] for rows [n, f], unchecked; thread-safe."""


class OnnxScorer:
    """A model file with one input `features`, float32 [n, f], and an output `probabilities`."""

    def __init__(self, path: Path, n_features: int) -> None:
        """Load a model.

        Raises:
            BadData: the file is not a model with these inputs and outputs.
        """
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
        if [i.name for i in inputs] != [INPUT] or OUTPUT not in [o.name for o in outputs]:
            raise BadData(
                f"{path.name} has inputs {[i.name for i in inputs]} and outputs "
                f"{[o.name for o in outputs]}",
                fix=f"convert it with one input {INPUT!r} and an output {OUTPUT!r} (zipmap off)",
            )
        width = inputs[0].shape[-1]
        if isinstance(width, int) and width != n_features:
            raise BadData(f"{path.name} takes {width} features, its manifest names {n_features}")

    def run(self, matrix: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """The positive class's probability [n] for rows [n, f], unchecked; thread-safe."""
        # What is too large for the model's float32 is infinite to it, which is no news for a log.
        with np.errstate(over="ignore"):
            features = np.ascontiguousarray(matrix, dtype=np.float32)
        (probabilities,) = self._session.run([OUTPUT], {INPUT: features})
        scores: NDArray[np.float64] = np.asarray(probabilities)[:, 1].astype(np.float64)
        return scores

    def score(self, matrix: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """The positive class's probability [n], float64, for rows [n, f].

        Raises:
            ScoreInvalid: a score is not a number or outside of 0 to 1.
        """
        return checked(self.run(matrix))


def checked(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scores [n] themselves.

    Raises:
        ScoreInvalid: a score is not a number or outside of 0 to 1.
    """
    wrong = ~valid(scores)
    if wrong.any():
        raise ScoreInvalid(
            f"{int(wrong.sum())} of {len(scores)} scores are not in 0 to 1, "
            f"the first is {scores[wrong][0]}",
            fix="roll the model back",
        )
    return scores


def valid(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which scores are probabilities: in 0 to 1, and so not NaN."""
    return (scores >= 0.0) & (scores <= 1.0)
