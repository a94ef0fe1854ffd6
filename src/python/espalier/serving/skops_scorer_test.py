from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skops import io

from espalier.errors import BadData, ScoreInvalid
from espalier.processes import python_environment
from espalier.registry.manifest import SKOPS, ModelManifest
from espalier.serving.loading import load
from espalier.serving.scorer import checked
from espalier.serving.skops_scorer import SkopsScorer
from espalier.serving.testing import FEATURES, features_of, write_model

NAMES = ["u0000", "u0149", "u0299"]
ROWS = np.array([features_of(name) for name in NAMES])


def doubled(rows: np.ndarray) -> np.ndarray:
    return rows * 2


def fitted(function=np.arcsinh):
    """A pipeline that has no ONNX form."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    rows = np.random.default_rng(0).uniform(0, 300, (200, len(FEATURES)))
    model = make_pipeline(SimpleImputer(), FunctionTransformer(function), LogisticRegression())
    return model.fit(rows, rows[:, 0] > 150)


def written(folder: Path, model) -> ModelManifest:
    """A version as training writes one that is served by skops."""
    manifest = write_model(folder)
    io.dump(model, folder / SKOPS)
    scores = model.predict_proba(np.array(manifest.golden_rows))[:, 1]
    return replace(
        manifest,
        file=SKOPS,
        digest=hashlib.sha256((folder / SKOPS).read_bytes()).hexdigest(),
        golden_scores=tuple(scores.tolist()),
    )


def test_a_model_without_an_onnx_form_is_loaded_and_scores_as_scikit_learn(tmp_path):
    model = fitted()
    loaded = load("churn", "2", folder=tmp_path, manifest=written(tmp_path, model))
    expected = model.predict_proba(ROWS)[:, 1]
    assert np.ptp(expected) > 0.1
    for matrix in (ROWS, ROWS.astype(np.float32), np.asfortranarray(ROWS)):
        scores = loaded.scorer.run(matrix)
        assert scores.dtype == np.float64
        np.testing.assert_allclose(scores, expected, atol=1e-12)


def test_a_row_that_is_refused_leaves_the_others_their_scores(tmp_path):
    io.dump(fitted(), tmp_path / SKOPS)
    rows = ROWS.copy()
    rows[1, 0] = np.inf
    rows[2, 0] = np.nan
    scores = SkopsScorer(tmp_path / SKOPS, len(FEATURES)).run(rows)
    assert np.isnan(scores).tolist() == [False, True, False]
    with pytest.raises(ScoreInvalid, match="1 of 3 scores"):
        checked(scores)


def test_golden_rows_that_score_otherwise_are_refused(tmp_path):
    manifest = written(tmp_path, fitted())
    first, *rest = manifest.golden_scores
    assert isinstance(first, float)
    off = replace(manifest, golden_scores=(first + 1e-4, *rest))
    with pytest.raises(BadData, match=r"0\.0001 off"):
        load("churn", "2", folder=tmp_path, manifest=off)


def test_types_that_are_not_trusted_are_not_built(tmp_path):
    io.dump(fitted(doubled), tmp_path / SKOPS)
    with pytest.raises(BadData, match=r"not trusted: .*doubled"):
        SkopsScorer(tmp_path / SKOPS, len(FEATURES))


def test_a_file_that_is_no_such_model_is_bad_data(tmp_path):
    path = tmp_path / SKOPS
    path.write_bytes(b"not a model")
    with pytest.raises(BadData, match="is not a skops file"):
        SkopsScorer(path, 3)
    io.dump(fitted(), path)
    with pytest.raises(BadData, match=f"takes {len(FEATURES)} features, its manifest names 3"):
        SkopsScorer(path, 3)
    io.dump([1, 2], path)
    with pytest.raises(BadData, match="no classifier of two classes"):
        SkopsScorer(path, 3)


def test_without_scikit_learn_the_server_says_which_flag_is_missing(tmp_path):
    """In a process where it cannot be imported, as in a server without it."""
    io.dump(fitted(), tmp_path / SKOPS)
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['sklearn', 'skops', 'skops.io']))\n"
        "from pathlib import Path\n"
        "from espalier.errors import BadData\n"
        "from espalier.serving.loading import open_scorer\n"
        "try:\n    open_scorer(Path(sys.argv[1]), 11)\n"
        "except BadData as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / SKOPS)],
        env={**os.environ, **python_environment()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (
        "model.skops: the model has no ONNX form and this program carries no scikit-learn; "
        "declare ml_project(..., serve_with_sklearn=True) and build the server again\n"
    )
