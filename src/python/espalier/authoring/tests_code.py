"""The texts of a product's tests, of its BUILD file and of its Feast definitions."""

from __future__ import annotations

from espalier.authoring.project_code import Product
from espalier.project import Task

BUILD = 'ml_project(name="{name}")\n'

FEAST = '''"""Feast's definitions of {name}, as its declaration says.

The module is not named `{name}`: Feast imports it by its file's name, which is then the package's.
"""

from __future__ import annotations

{ours}

_DEFINITIONS = definitions(PROJECT)
# Feast registers the objects that it finds among a module's attributes.
entity, source, view = _DEFINITIONS.entity, _DEFINITIONS.source, _DEFINITIONS.view
'''

_PROJECT_TEST = """from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

{ours}

BATCHES = sorted(Path("data/seeds/{name}").glob("month_*"))
KEY = PROJECT.entity.join_key


def rows(batch: Path, table: str) -> pd.DataFrame:
    return pd.read_csv(batch / f"{{table}}.csv", dtype=str, keep_default_na=False)


def test_it_is_{task}():
    assert PROJECT.task is Task.{task_name}


def test_there_are_batches_from_the_first_on():
    assert [batch.name for batch in BATCHES][:1] == ["month_000"]


@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: batch.name)
@pytest.mark.parametrize("table", PROJECT.tables, ids=lambda table: table.name)
def test_a_batch_holds_the_declared_columns_and_each_key_once(batch, table):
    found = rows(batch, table.name)
    assert list(found.columns) == [column.name for column in table.columns]
    assert not found.duplicated(list(table.key)).any()
    for column in table.columns:
        if not column.nullable:
            assert (found[column.name] != "").all(), column.name
        numbers = pd.to_numeric(found[column.name], errors="coerce")
        if column.minimum is not None:
            assert not (numbers < column.minimum).any(), column.name
        if column.maximum is not None:
            assert not (numbers > column.maximum).any(), column.name


@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: batch.name)
def test_a_batch_is_known_on_its_day(batch):
    as_of = PROJECT.calendar.as_of(int(batch.name[-3:]))
    features, labels = rows(batch, "features"), rows(batch, "labels")
    assert (features["feature_date"] <= as_of.isoformat()).all()
    assert (labels["label_date"] <= (as_of - PROJECT.label.horizon).isoformat()).all()


def test_every_label_is_one_that_is_declared():
    values = pd.concat([rows(batch, "labels")["label_value"] for batch in BATCHES])
{check}
"""

_CHECKS = {
    Task.BINARY: '    assert set(values) == {"true", "false"}',
    Task.MULTICLASS: "    assert set(values) == set(PROJECT.label.classes)",
    Task.REGRESSION: "    assert len(set(pd.to_numeric(values))) > 1",
}

_ESTIMATOR_TEST = '''from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
{imports}from threadpoolctl import threadpool_limits

{ours}

BATCHES = sorted(Path("data/seeds/{name}").glob("month_*"))
KEY, FEATURES = PROJECT.entity.join_key, list(PROJECT.view.features)


def table(name: str) -> pd.DataFrame:
    """All batches of a table."""
    paths = [batch / f"{{name}}.csv" for batch in BATCHES]
    return pd.concat([pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As training has it."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def labelled() -> tuple[np.ndarray, np.ndarray]:
    """Features and labels, at most 2,000 rows in a seeded order."""
    both = table("labels").merge(
        table("features"), left_on=[KEY, "label_date"], right_on=[KEY, "feature_date"]
    )
    drawn = both.sample(min(len(both), 2000), random_state=0)
    # As training gives them to the model.
    features = drawn[FEATURES].apply(pd.to_numeric).to_numpy(np.float32).astype(float)
    return features, {target}


@pytest.mark.parametrize("trees", [False, True])
def test_it_scores_every_row_with_and_without_values(labelled, trees):
    features, labels = labelled
    model = estimator.build(seed=1, trees=trees).fit(features, labels)
    empty = np.full_like(features[:1], np.nan)
    scores = model.{score}(np.concatenate([features, empty]))
    assert np.isfinite(scores).all()
    again = estimator.build(seed=1, trees=trees).fit(features, labels)
    assert np.array_equal(scores[:-1], again.{score}(features))


@pytest.mark.parametrize("trees", [False, True])
def test_it_scores_in_onnx_as_in_scikit_learn(labelled, trees):
    features, labels = labelled
    model = estimator.build(trees=trees).fit(features, labels)
    # A row without gaps, to learn which columns may have some.
    content = to_onnx(model, np.nan_to_num(features[0]), name=PROJECT.name)
    served = open_score(content)(features)
    scores = model.{score}(features){column}
    assert np.allclose(served, scores, rtol=1e-4, atol=1e-5)
'''

_BETTER = """

def test_it_is_better_than_the_baseline_on_rows_that_it_has_not_seen(labelled):
    features, labels = labelled
    half = len(labels) // 2
    model = estimator.build().fit(features[:half], labels[:half])
    baseline = estimator.baseline().fit(features[:half], labels[:half])
{compared}
"""

_BY_SCORE = (
    "    seen = [one.score(features[half:], labels[half:]) for one in (model, baseline)]\n"
    "    assert seen[0] > seen[1]"
)
_BY_ROC_AUC = (
    "    scores = model.predict_proba(features[half:])[:, 1]\n"
    "    assert roc_auc_score(labels[half:], scores) > 0.5\n"
    "    assert np.ptp(baseline.predict_proba(features)[:, 1]) == 0"
)


def build(product: Product) -> str:
    """The BUILD file."""
    return BUILD.format(name=product.name)


def feast(product: Product) -> str:
    """The Feast definitions."""
    ours = _ours(product, "from espalier.features.feast_store import definitions")
    return FEAST.format(name=product.name, ours=ours)


def _ours(product: Product, *others: str) -> str:
    """The imports of the repository's own modules, in their order."""
    lines = [*others, f"from {product.name}.project import PROJECT"]
    return "\n".join(sorted(lines, key=lambda line: line.split()[1]))


def project_test(product: Product) -> str:
    """The test of the declaration against the committed batches."""
    task = product.task
    return _PROJECT_TEST.format(
        name=product.name,
        ours=_ours(product, "from espalier.project import Task"),
        task=task.value,
        task_name=task.name,
        check=_CHECKS[task],
    )


def estimator_test(product: Product, *, better: bool) -> str:
    """The test of the estimator.

    Args:
        product: The product.
        better: Whether it was seen to be better than the baseline, and so must stay.
    """
    binary = product.task is Task.BINARY
    targets = {
        Task.BINARY: '(drawn["label_value"] == "true").to_numpy()',
        Task.MULTICLASS: 'drawn["label_value"].map(PROJECT.label.classes.index).to_numpy()',
        Task.REGRESSION: 'drawn["label_value"].to_numpy(float)',
    }
    text = _ESTIMATOR_TEST.format(
        name=product.name,
        ours=_ours(
            product,
            "from espalier.training.onnx_export import open_score, to_onnx",
            f"from {product.name} import estimator",
        ),
        imports="from sklearn.metrics import roc_auc_score\n" if better and binary else "",
        target=targets[product.task],
        score="predict" if product.task is Task.REGRESSION else "predict_proba",
        column="[:, 1]" if binary else "",
    )
    if better:
        text += _BETTER.format(compared=_BY_ROC_AUC if binary else _BY_SCORE)
    return text
