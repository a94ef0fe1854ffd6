from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from espalier.errors import BadData, ScoreInvalid
from espalier.serving.loading import load
from espalier.serving.scorer import OnnxScorer, answers, checked, valid
from espalier.serving.testing import FEATURES, expected_score, features_of, write_model

NAMES = ["u0000", "u0149", "u0299"]


def test_scores_are_the_logistic_curve_for_either_precision(loaded):
    rows = np.array([features_of(name) for name in NAMES])
    wanted = [expected_score(name, 0.01) for name in NAMES]
    for matrix in (rows, rows.astype(np.float32), np.asfortranarray(rows)):
        scores = checked(loaded.scorer.run(matrix))
        assert scores.dtype == np.float64
        np.testing.assert_allclose(scores, wanted, atol=1e-6)


def test_a_score_that_is_not_a_number_is_refused(loaded):
    row = np.full((1, len(FEATURES)), np.nan)
    with pytest.raises(ScoreInvalid, match="1 of 1 scores"):
        checked(loaded.scorer.run(row))


def test_only_probabilities_are_valid():
    scores = np.array([0.0, 1.0, 0.5, -1e-9, 1 + 1e-9, np.nan, np.inf])
    assert valid(scores).tolist() == [True, True, True, False, False, False, False]


def test_of_several_classes_the_probabilities_of_a_row_are_one_in_sum():
    rows = np.array(
        [
            [0.2, 0.3, 0.5],
            [0.2, 0.3, 0.5005],
            [0.2, 0.3, 0.52],
            [-0.1, 0.6, 0.5],
            [np.nan, 0.5, 0.5],
        ]
    )
    assert valid(rows, "multiclass").tolist() == [True, True, False, False, False]
    with pytest.raises(ScoreInvalid, match="3 of 5 scores are not in 0 to 1 with a sum of 1"):
        checked(rows, "multiclass")
    assert valid(np.empty(0), "multiclass").tolist() == []


def test_a_number_is_valid_when_it_is_finite():
    values = np.array([-1e9, 0.0, 7.5, np.nan, np.inf, -np.inf])
    assert valid(values, "regression").tolist() == [True, True, True, False, False, False]
    with pytest.raises(ScoreInvalid, match="3 of 6 scores are not finite, the first is nan"):
        checked(values, "regression")


def test_what_scores_say_depends_on_the_task(loaded):
    binary = answers(replace(loaded.manifest, threshold=0.4), np.array([0.3, 0.4, 0.9]))
    assert binary.prediction.tolist() == [0.0, 1.0, 1.0]
    several = replace(loaded.manifest, task="multiclass", classes=("a", "b", "c"))
    found = answers(several, np.array([[0.2, 0.7, 0.1], [0.1, 0.1, 0.8]]))
    assert (found.score.tolist(), found.prediction.tolist()) == ([0.7, 0.8], [1.0, 2.0])
    assert answers(several, np.empty(0)).score.shape == (0,)
    number = answers(replace(loaded.manifest, task="regression"), np.array([-3.5]))
    assert number.score.tolist() == number.prediction.tolist() == [-3.5]


def test_a_file_that_is_no_model_is_bad_data(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(BadData, match=r"model\.onnx is not an ONNX model"):
        OnnxScorer(path, 3)


def test_a_model_of_another_width_is_bad_data(tmp_path):
    write_model(tmp_path)
    with pytest.raises(BadData, match=f"takes {len(FEATURES)} features, its manifest names 3"):
        OnnxScorer(tmp_path / "model.onnx", 3)


def test_a_changed_file_is_refused_by_its_digest(tmp_path):
    manifest = write_model(tmp_path)
    path = tmp_path / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BadData, match="sha256"):
        load("churn", "2", folder=tmp_path, manifest=manifest)


def test_golden_rows_that_score_otherwise_are_refused(tmp_path):
    manifest = write_model(tmp_path)
    first, *rest = manifest.golden_scores
    assert isinstance(first, float)
    load("churn", "2", folder=tmp_path, manifest=manifest)
    off = replace(manifest, golden_scores=(first + 2e-5, *rest))
    with pytest.raises(BadData, match="2e-05 off"):
        load("churn", "2", folder=tmp_path, manifest=off)


def test_another_kind_of_file_is_refused(tmp_path):
    manifest = write_model(tmp_path, file="model.pkl")
    with pytest.raises(BadData, match=r"this server loads model\.onnx"):
        load("churn", "2", folder=tmp_path, manifest=manifest)
