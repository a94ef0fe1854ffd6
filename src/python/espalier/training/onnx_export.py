"""Converts a fitted scikit-learn classifier to ONNX, and proves that it scores the same.

The graph has one input `features`, float32 [None, n], and the outputs `label` [n] and
`probabilities` float32 [n, 2].
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from espalier.errors import CheckRefused
from espalier.training.evaluate import Floats

INPUT, PROBABILITIES = "features", "probabilities"
TOLERANCE = 1e-5
# What ONNX Runtime of several years reads; the converters need nothing newer.
_OPSETS = {"": 17, "ai.onnx.ml": 3}


def to_onnx(estimator: Any, n_features: int, *, name: str) -> bytes:
    """The serialized ONNX model of a fitted classifier over `n_features` numeric columns.

    Raises:
        CheckRefused: skl2onnx has no converter for a step of it.
    """
    from onnx import checker
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

    unsupported = (MissingConverter, MissingShapeCalculator, NotImplementedError, RuntimeError)
    with _plain_attributes(), warnings.catch_warnings():
        # Such as deprecations inside of skl2onnx, which nobody here can act on.
        warnings.simplefilter("ignore")
        try:
            model = convert_sklearn(
                estimator,
                name,
                [(INPUT, FloatTensorType([None, n_features]))],
                options={id(estimator): {"zipmap": False}},
                target_opset=_OPSETS,
            )
        except unsupported as error:
            raise CheckRefused(
                f"{type(estimator).__name__} does not convert to ONNX: {str(error)[:300]}",
                fix="use steps that skl2onnx supports",
            ) from error
    _merge_opsets(model)
    checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def score(content: bytes, features: npt.ArrayLike) -> Floats:
    """Probabilities of the positive class [n] for rows [n, f], by ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Warnings go to the process's stderr otherwise.
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        content, sess_options=options, providers=["CPUExecutionProvider"]
    )
    rows = np.ascontiguousarray(features, dtype=np.float32)
    (found,) = session.run([PROBABILITIES], {INPUT: rows})
    return np.asarray(found[:, 1], dtype=np.float64)


def check_parity(content: bytes, estimator: Any, features: Floats) -> float:
    """The largest difference of scores between ONNX and scikit-learn over rows [n, f].

    Rows hold what float32 can; NaN is a missing value.

    Raises:
        CheckRefused: a score differs by more than `TOLERANCE`, or is not a number in one of them.
    """
    expected = estimator.predict_proba(features)[:, 1]
    found = score(content, features)
    difference = np.abs(found - expected)
    # NaN compares false with everything, so it has to be asked for.
    wrong = ~(difference <= TOLERANCE)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise CheckRefused(
            f"the ONNX model scores {int(wrong.sum())} of {len(features)} rows otherwise than "
            f"{type(estimator).__name__}, row {row}: {found[row]:.6g} against {expected[row]:.6g}",
            fix="change the estimator's steps, or report the converter's fault to skl2onnx",
        )
    return float(difference.max(initial=0.0))


@contextmanager
def _plain_attributes() -> Iterator[None]:
    """Let skl2onnx 1.20 work with onnx >= 1.18, for the time of one conversion.

    Its tree converters put numpy and Python booleans among the integer attributes of a node, which
    newer releases of onnx refuse ("Expected an int, got a boolean"). `make_node` as skl2onnx's
    container imports it gets them as Python integers instead.
    """
    from skl2onnx.common import _container

    original = _container.make_node

    def make_node(*args: Any, **attributes: Any) -> Any:
        return original(*args, **{key: _plain(value) for key, value in attributes.items()})

    _container.make_node = make_node
    try:
        yield
    finally:
        _container.make_node = original


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, np.bool_, np.integer)):
        return int(value)
    return value


def _merge_opsets(model: Any) -> None:
    """Name each operator set once; nested converters leave a line each."""
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        versions[entry.domain] = max(entry.version, versions.get(entry.domain, 0))
    del model.opset_import[:]
    for domain, version in versions.items():
        model.opset_import.add(domain=domain, version=version)
