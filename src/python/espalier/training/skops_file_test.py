from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from churn import estimator as churn_estimator
from espalier.errors import BadData, CheckRefused
from espalier.training import skops_file

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.gamma(1.0, 50.0, (300, 11))
ROWS[:50, 10] = np.nan
LABELS = (ROWS[:, 0] > 40).astype(int)


def doubled(rows: np.ndarray) -> np.ndarray:
    return rows * 2


@pytest.mark.parametrize(
    "model",
    [
        churn_estimator.build(),
        churn_estimator.recency_only(),
        HistGradientBoostingClassifier(max_iter=5),
    ],
    ids=["churn", "baseline", "trees"],
)
def test_an_estimator_comes_back_as_it_was(model, tmp_path: Path) -> None:
    model.fit(ROWS, LABELS)
    skops_file.save(model, tmp_path / "model.skops")
    loaded = skops_file.load(tmp_path / "model.skops")
    assert np.array_equal(loaded.predict_proba(ROWS), model.predict_proba(ROWS))


def test_the_file_is_a_zip_of_data_and_holds_no_pickle(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops_file.save(churn_estimator.build().fit(ROWS, LABELS), path)
    with zipfile.ZipFile(path) as archive:
        assert {Path(name).suffix for name in archive.namelist()} <= {".json", ".npy"}
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as array:
                    np.lib.format.read_array(array, allow_pickle=False)


def test_a_function_of_ones_own_is_not_saved(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(doubled), HistGradientBoostingClassifier(max_iter=2))
    with pytest.raises(CheckRefused, match="doubled"):
        skops_file.save(model.fit(ROWS, LABELS), tmp_path / "model.skops")
    assert not (tmp_path / "model.skops").exists()


def test_a_type_that_is_not_trusted_is_not_loaded(tmp_path: Path) -> None:
    from skops import io  # to write what our own save refuses

    io.dump(FunctionTransformer(doubled), tmp_path / "model.skops")
    with pytest.raises(BadData, match="doubled"):
        skops_file.load(tmp_path / "model.skops")


def test_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.skops").write_bytes(pickle.dumps(churn_estimator.build()))
    with pytest.raises(BadData, match="not a skops file"):
        skops_file.load(tmp_path / "model.skops")
