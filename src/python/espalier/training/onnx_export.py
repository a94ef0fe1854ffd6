"""Converts a fitted scikit-learn estimator to ONNX, and proves that it scores the same.

The graph has one input `features`, float32 [None, n]. Of a classifier the outputs are `label` [n]
and `probabilities` float32 [n, k], of a regressor `value` float32 [n, 1]. Where scikit-learn refuses
a row, for an infinity or a missing value in a column whose step takes none, the graph's scores are
NaN, which the server refuses too; converted steps alone would score such a row somehow.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from espalier.registry.manifest import TOLERANCE
from espalier.training import fitting
from espalier.training.evaluate import Booleans, Floats

INPUT, LABEL, PROBABILITIES, VALUE = "features", "label", "probabilities", "value"
# Rows [n, f] to scores as `fitting.scores_of` gives them.
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

    `rows` were compared, `labels` of them have another label, `scores` differ by more than `limit`
    or are NaN in one of both only. `example` is one such row in words, or empty.
    """

    rows: int
    largest: float
    labels: int
    scores: int
    example: str
    limit: float = TOLERANCE

    @property
    def holds(self) -> bool:
        """Whether every row has the same label and, to the tolerance, the same score."""
        return self.labels == 0 and self.scores == 0


def to_onnx(estimator: Any, example: Floats, *, name: str) -> bytes:
    """The serialized ONNX model of a fitted estimator.

    Args:
        estimator: The classifier or regressor.
        example: One row [f] of finite values, to learn which columns take no other.
        name: The graph's name.

    Raises:
        NotConvertibleError: skl2onnx has no converter for a step of it.
    """
    from onnx import checker
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
    from sklearn.base import is_regressor

    regressor = is_regressor(estimator)
    unsupported = (MissingConverter, MissingShapeCalculator, NotImplementedError, RuntimeError)
    with _plain_attributes(), warnings.catch_warnings():
        # Such as deprecations inside of skl2onnx, which nobody here can act on.
        warnings.simplefilter("ignore")
        try:
            model = convert_sklearn(
                estimator,
                name,
                [(INPUT, FloatTensorType([None, len(example)]))],
                options=None if regressor else {id(estimator): {"zipmap": False}},
                target_opset=_OPSETS,
            )
        except unsupported as error:
            first = " ".join(str(error).split())[:200]
            raise NotConvertibleError(
                f"{type(estimator).__name__} has no ONNX form: {first}"
            ) from error
    _merge_opsets(model)
    if regressor:
        _rename(model.graph, model.graph.output[0].name, VALUE)
        model.graph.output[0].name = VALUE
    _guard(model.graph, VALUE if regressor else PROBABILITIES, refused(estimator, example))
    checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def refused(estimator: Any, example: Floats) -> Refused:
    """What a fitted estimator refuses, found by asking it; `example` is one finite row [f]."""

    def refuses(columns: list[int], value: float) -> bool:
        row = example[np.newaxis].copy()
        row[0, columns] = value
        try:
            fitting.scores_of(estimator, row)
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
    """A function from rows [n, f] to scores, on one thread."""
    session = _session(content)
    output = _scores_of(session)

    def run(features: npt.ArrayLike) -> Floats:
        rows = np.ascontiguousarray(features, dtype=np.float32)
        (found,) = session.run([output], {INPUT: rows})
        return _columns(output, found)

    return run


def score(content: bytes, features: npt.ArrayLike) -> Floats:
    """The scores for rows [n, f], by ONNX Runtime on one thread."""
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

    A row that scikit-learn refuses must be NaN in ONNX. A classifier's labels are compared unless
    two classes are equally probable to the tolerance, where rounding decides. A regressor's values
    may differ by the tolerance times the largest of them, as float32 keeps seven digits.
    """
    session, rows = _session(content), np.ascontiguousarray(features, dtype=np.float32)
    output = _scores_of(session)
    found = _columns(output, session.run([output], {INPUT: rows})[0])
    refuses = refused(estimator, finite_row(features)).rows(features)
    expected = np.full(found.shape, np.nan)
    same_label = np.ones(len(features), dtype=bool)
    if not refuses.all():
        expected[~refuses] = fitting.scores_of(estimator, features[~refuses])
    limit = TOLERANCE
    if output == VALUE:
        limit *= float(np.nanmax(np.abs(expected), initial=0.0))
    else:
        (found_labels,) = session.run([LABEL], {INPUT: rows})
        labels = np.zeros(len(features), dtype=np.int64)
        if not refuses.all():
            labels[~refuses] = estimator.predict(features[~refuses])
        same_label = refuses | _tie(expected) | (np.asarray(found_labels) == labels)
    difference = np.abs(found - expected)
    # NaN compares false with everything, so it has to be asked for.
    # A column for each class, or one.
    near, nan = (
        np.reshape(each, (len(features), -1)).all(axis=1)
        for each in (difference <= limit, np.isnan(found))
    )
    same = np.where(refuses, nan, near)
    example = ""
    if not (same & same_label).all():
        row = int(np.argmin(same & same_label))
        example = f"row {row}: {_said(found[row])} against {_said(expected[row])}"
    return Parity(
        rows=len(features),
        largest=float(np.nanmax(difference, initial=0.0)),
        labels=int((~same_label).sum()),
        scores=int((~same).sum()),
        example=example,
        limit=limit,
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


def _tie(scores: Floats) -> Booleans:
    """Whether two classes are the most probable ones of a row [n], to the tolerance."""
    if scores.ndim == 1:
        return np.asarray(np.abs(scores - 0.5) <= TOLERANCE)
    first = np.sort(scores, axis=1)
    return np.asarray(first[:, -1] - first[:, -2] <= 2 * TOLERANCE)


def _said(score: Any) -> str:
    return " ".join(f"{value:.6g}" for value in np.atleast_1d(score))


def _scores_of(session: Any) -> str:
    """The output that holds the scores."""
    return VALUE if VALUE in {one.name for one in session.get_outputs()} else PROBABILITIES


def _columns(output: str, found: Any) -> Floats:
    """A regressor's one column, the positive class's of two, or all."""
    if output == VALUE:
        return np.asarray(found[:, 0], dtype=np.float64)
    return np.asarray(found[:, 1] if found.shape[1] == 2 else found, dtype=np.float64)


def _session(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Warnings go to the process's stderr otherwise.
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        content, sess_options=options, providers=["CPUExecutionProvider"]
    )


def _rename(graph: Any, old: str, new: str) -> None:
    """Give a value between nodes another name."""
    for node in graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
        node.input[:] = [new if name == old else name for name in node.input]


def _guard(graph: Any, output: str, refuses: Refused) -> None:
    """Let the graph's scores be NaN in rows that the estimator refuses."""
    from onnx import TensorProto, helper

    tests = [
        (kind, columns)
        for kind, columns in (("IsInf", refuses.infinite), ("IsNaN", refuses.missing))
        if columns.any()
    ]
    if not tests:
        return
    inner = f"espalier_{output}"
    _rename(graph, output, inner)
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
            helper.make_node("Where", [refused_row, "espalier_nan", inner], [output]),
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
