"""Proves that a fetched model can be used, before anything is decided about it."""

from __future__ import annotations

from typing import Any

from espalier.errors import BadData
from espalier.registry.download import FetchedModel
from espalier.registry.manifest import ONNX
from espalier.registry.trusted import TRUSTED


def check(fetched: FetchedModel) -> None:
    """Load the model file and score the golden rows of its manifest.

    Of a skops file no types are built but the trusted ones.

    Raises:
        BadData: the file cannot be loaded, or it scores otherwise than in training.
    """
    import numpy as np

    manifest = fetched.manifest
    what = f"{manifest.file} of {fetched.name} version {fetched.version}"
    # Rounded as a server rounds them.
    rows = np.array(manifest.golden_rows, dtype=np.float32).reshape(-1, len(manifest.features))
    try:
        found = _by_onnx(fetched, rows) if manifest.file == ONNX else _by_skops(fetched, rows)
        if manifest.task != "multiclass":
            found = found[:, 1 if manifest.task == "binary" else 0]
        difference = np.abs(found - np.array(manifest.golden_scores))
    except Exception as error:  # both libraries raise classes of their own, and Python's
        first_line = str(error).strip().split("\n")[0][:200]
        raise BadData(
            f"{what} cannot be used: {first_line}",
            fix="it stays out of service; train again",
        ) from error
    # NaN compares false with everything.
    if not (difference <= manifest.golden_tolerance).all():
        raise BadData(
            f"{what} scores a golden row {float(difference.max()):.2g} off",
            fix="compare the libraries here with those in training",
        )


def _by_onnx(fetched: FetchedModel, rows: Any) -> Any:
    """Probabilities [n, k], or a regressor's values [n, 1]."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        fetched.path.read_bytes(), sess_options=options, providers=["CPUExecutionProvider"]
    )
    output = "value" if fetched.manifest.task == "regression" else "probabilities"
    (found,) = session.run([output], {"features": rows})
    return found


def _by_skops(fetched: FetchedModel, rows: Any) -> Any:
    """Probabilities [n, k], or a regressor's values [n, 1]."""
    from skops import io

    estimator, rows = io.load(fetched.path, trusted=list(TRUSTED)), rows.astype("float64")
    if fetched.manifest.task == "regression":
        return estimator.predict(rows).reshape(-1, 1)
    return estimator.predict_proba(rows)
