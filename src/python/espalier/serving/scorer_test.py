from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from espalier.errors import BadData, ScoreInvalid
from espalier.serving.loading import load
from espalier.serving.scorer import OnnxScorer, valid
from espalier.serving.testing import FEATURES, expected_score, features_of, write_model

NAMES = ["u0000", "u0149", "u0299"]


def test_scores_are_the_logistic_curve_for_either_precision(loaded):
    rows = np.array([features_of(name) for name in NAMES])
    wanted = [expected_score(name, 0.01) for name in NAMES]
    for matrix in (rows, rows.astype(np.float32), np.asfortranarray(rows)):
        scores = loaded.scorer.score(matrix)
        assert scores.dtype == np.float64
        np.testing.assert_allclose(scores, wanted, atol=1e-6)


def test_a_score_that_is_not_a_number_is_refused(loaded):
    row = np.full((1, len(FEATURES)), np.nan)
    with pytest.raises(ScoreInvalid, match="1 of 1 scores"):
        loaded.scorer.score(row)


def test_only_probabilities_are_valid():
    scores = np.array([0.0, 1.0, 0.5, -1e-9, 1 + 1e-9, np.nan, np.inf])
    assert valid(scores).tolist() == [True, True, True, False, False, False, False]


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
    load("churn", "2", folder=tmp_path, manifest=manifest)
    off = replace(manifest, golden_scores=(first + 2e-5, *rest))
    with pytest.raises(BadData, match="2e-05 off"):
        load("churn", "2", folder=tmp_path, manifest=off)


def test_another_kind_of_file_is_refused(tmp_path):
    manifest = write_model(tmp_path, file="model.pkl")
    with pytest.raises(BadData, match=r"this server loads model\.onnx"):
        load("churn", "2", folder=tmp_path, manifest=manifest)
