"""Converts a fitted scikit-learn classifier to ONNX, and proves that it scores the same.

The graph has one input `features`, float32 [None, n], and the outputs `label` [n] and
`probabilities` float32 [n, 2]. Where scikit-learn refuses a row, for an infinity or a missing value
in a column whose step takes none, the graph's probabilities are NaN, which the server refuses too;
converted steps alone would score such a row somehow.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from espalier.training.evaluate import Booleans, Floats

INPUT, LABEL, PROBABILITIES = "features", "label", "probabilities"
TOLERANCE = 1e-5
# Rows [n, f] to probabilities of the positive class [n].
Score = Callable[[npt.ArrayLike], Floats]
# What ONNX Runtime of several years reads; the converters need nothing newer.
_OPSETS = {"": 17, "ai.onnx.ml": 3}


class NotConvertibleError(Exception):
    """skl2onnx has no converter for a step of the estimator."""


@dataclass(frozen=True)
class Refused:
    """The columns [f] in which the estimator takes no infinity, and those in which no NaN."""

    infinite: Booleans
    missing: Booleans

    def rows(self, features: Floats) -> Booleans:
        """Which rows [n] of [n, f] the estimator refuses."""
        wrong = (np.isinf(features) & self.infinite) | (np.isnan(features) & self.missing)
        return np.asarray(wrong.any(axis=1))


@dataclass(frozen=True)
class Parity:
    """How ONNX compares with scikit-learn: the largest difference of scores on rows that both take.

    `rows` were compared, `labels` of them have another label, `scores` differ by more than
    `TOLERANCE` or are NaN in one of both only. `example` is one such row in words, or empty.
    """

    rows: int
    largest: float
    labels: int
    scores: int
    example: str

    @property
    def holds(self) -> bool:
        """Whether every row has the same label and, to the tolerance, the same score."""
        return self.labels == 0 and self.scores == 0


def to_onnx(estimator: Any, example: Floats, *, name: str) -> bytes:
    """The serialized ONNX model of a fitted classifier.

    Args:
        estimator: The classifier, of two classes.
        example: One row [f] of finite values, to learn which columns take no other.
        name: The graph's name.

    Raises:
        NotConvertibleError: skl2onnx has no converter for a step of it.
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
                [(INPUT, FloatTensorType([None, len(example)]))],
                options={id(estimator): {"zipmap": False}},
                target_opset=_OPSETS,
            )
        except unsupported as error:
            first = " ".join(str(error).split())[:200]
            raise NotConvertibleError(
                f"{type(estimator).__name__} has no ONNX form: {first}"
            ) from error
    _merge_opsets(model)
    _guard(model.graph, refused(estimator, example))
    checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def refused(estimator: Any, example: Floats) -> Refused:
    """What a fitted classifier refuses, found by asking it; `example` is one finite row [f]."""

    def refuses(columns: list[int], value: float) -> bool:
        row = example[np.newaxis].copy()
        row[0, columns] = value
        try:
            estimator.predict_proba(row)
        except ValueError:
            return True
        return False

    columns = list(range(len(example)))

    def each(value: float) -> Booleans:
        # Few estimators refuse anything, and each call of one may take milliseconds.
        asked = columns if refuses(columns, value) else []
        return np.array([column in asked and refuses([column], value) for column in columns])

    # scikit-learn's input check makes no difference between the two infinities.
    return Refused(infinite=each(np.inf), missing=each(np.nan))


def open_score(content: bytes) -> Score:
    """A function from rows [n, f] to probabilities of the positive class [n], on one thread."""
    session = _session(content)

    def run(features: npt.ArrayLike) -> Floats:
        rows = np.ascontiguousarray(features, dtype=np.float32)
        (found,) = session.run([PROBABILITIES], {INPUT: rows})
        return np.asarray(found[:, 1], dtype=np.float64)

    return run


def score(content: bytes, features: npt.ArrayLike) -> Floats:
    """Probabilities of the positive class [n] for rows [n, f], by ONNX Runtime on one thread."""
    return open_score(content)(features)


def planted(features: Floats, seed: int) -> Floats:
    """The rows [n, f], and all of them once more with a NaN or an infinity in one column each."""
    generator = np.random.default_rng(seed)
    count, width = features.shape
    changed = features.copy()
    columns = np.resize(np.arange(width), count)
    changed[np.arange(count), columns] = generator.choice([np.nan, np.inf, -np.inf], count)
    return np.concatenate([features, changed])


def compare(content: bytes, estimator: Any, features: Floats) -> Parity:
    """Compare ONNX with scikit-learn over rows [n, f] that hold what float32 can.

    A row that scikit-learn refuses must be NaN in ONNX. Labels are compared unless the score is a
    half to the tolerance, where rounding decides.
    """
    refuses = refused(estimator, finite_row(features)).rows(features)
    expected = np.full(len(features), np.nan)
    labels = np.zeros(len(features), dtype=np.int64)
    if not refuses.all():
        expected[~refuses] = estimator.predict_proba(features[~refuses])[:, 1]
        labels[~refuses] = estimator.predict(features[~refuses])
    rows = np.ascontiguousarray(features, dtype=np.float32)
    found_labels, found = _session(content).run([LABEL, PROBABILITIES], {INPUT: rows})
    found = np.asarray(found[:, 1], dtype=np.float64)
    difference = np.abs(found - expected)
    # NaN compares false with everything, so it has to be asked for.
    same = np.where(refuses, np.isnan(found), difference <= TOLERANCE)
    tie = np.abs(expected - 0.5) <= TOLERANCE
    same_label = refuses | tie | (np.asarray(found_labels) == labels)
    example = ""
    if not (same & same_label).all():
        row = int(np.argmin(same & same_label))
        example = f"row {row}: {found[row]:.6g} against {expected[row]:.6g}"
    return Parity(
        rows=len(features),
        largest=float(np.nanmax(difference, initial=0.0)),
        labels=int((~same_label).sum()),
        scores=int((~same).sum()),
        example=example,
    )


def ends(content: bytes) -> tuple[dict[str, int], set[str]]:
    """The graph's inputs with their numbers of columns, and the names of its outputs."""
    session = _session(content)
    inputs = {one.name: one.shape[-1] for one in session.get_inputs()}
    return inputs, {one.name for one in session.get_outputs()}


def finite_row(features: Floats) -> Floats:
    """One row [f] of finite values: the columns' medians, 0 for a column without any."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        middle = np.nanmedian(np.where(np.isfinite(features), features, np.nan), axis=0)
    return np.asarray(np.nan_to_num(middle), dtype=np.float64)


def _session(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Warnings go to the process's stderr otherwise.
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        content, sess_options=options, providers=["CPUExecutionProvider"]
    )


def _guard(graph: Any, refuses: Refused) -> None:
    """Let the graph's probabilities be NaN in rows that the estimator refuses."""
    from onnx import TensorProto, helper

    tests = [
        (kind, columns)
        for kind, columns in (("IsInf", refuses.infinite), ("IsNaN", refuses.missing))
        if columns.any()
    ]
    if not tests:
        return
    inner = "espalier_probabilities"
    for node in graph.node:
        node.output[:] = [inner if name == PROBABILITIES else name for name in node.output]
        node.input[:] = [inner if name == PROBABILITIES else name for name in node.input]
    masked = []
    for kind, columns in tests:
        mask, flag, wrong = (f"espalier_{kind}_{part}" for part in ("mask", "flag", "wrong"))
        graph.initializer.append(
            helper.make_tensor(mask, TensorProto.BOOL, [len(columns)], columns.tolist())
        )
        graph.node.append(helper.make_node(kind, [INPUT], [flag]))
        graph.node.append(helper.make_node("And", [flag, mask], [wrong]))
        masked.append(wrong)
    nan = helper.make_tensor("espalier_nan", TensorProto.FLOAT, [], [float("nan")])
    graph.initializer.append(nan)
    both = masked[0]
    if len(masked) > 1:
        both = "espalier_wrong"
        graph.node.append(helper.make_node("Or", masked, [both]))
    numbers, any_, refused_row = "espalier_numbers", "espalier_any", "espalier_refused"
    graph.node.extend(
        [
            helper.make_node("Cast", [both], [numbers], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", [numbers], [any_], axes=[1], keepdims=1),
            helper.make_node("Cast", [any_], [refused_row], to=TensorProto.BOOL),
            helper.make_node("Where", [refused_row, "espalier_nan", inner], [PROBABILITIES]),
        ]
    )


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
