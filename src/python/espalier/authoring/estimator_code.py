"""The text of a product's estimator.py: one that is simple, and where to go on from it."""

from __future__ import annotations

from espalier.authoring.answers import As
from espalier.authoring.layout import layout
from espalier.authoring.project_code import Product
from espalier.project import Task

_IMPORTS = {
    "sklearn.compose": "ColumnTransformer",
    "sklearn.impute": "SimpleImputer",
    "sklearn.pipeline": "Pipeline",
}
_CLASSES = {
    "sklearn.dummy": "DummyClassifier",
    "sklearn.ensemble": "HistGradientBoostingClassifier",
    "sklearn.linear_model": "LogisticRegression",
}
_NUMBER = {
    "sklearn.dummy": "DummyRegressor",
    "sklearn.ensemble": "HistGradientBoostingRegressor",
    "sklearn.linear_model": "Ridge",
}

_HEAD = '''"""The model of {name} and the baseline that it has to beat.

Both take rows of the feature view's columns in declared order, with NaN for null, and convert to
ONNX (columns are therefore chosen by position).
"""

from __future__ import annotations

{imports}

from {name}.project import PROJECT
'''

_CODES = """
# Numbers of categories, as project.py tells; their distances mean nothing.
_CODES = {codes}
"""

_BUILD = '''

def build(*, seed: int = 0, trees: bool = False) -> Pipeline:
    """{linear_told}, or boosted trees: training tries both (`search` in project.py).

    Where to go on: other features, more settings to search, trees that only grow with a feature,
    the mean of both models; docs/new-product.md tells how.

    Args:
        seed: Of both.
        trees: Whether it is boosted trees.
    """
    if trees:
        model = {boosted}(
            max_iter=200,
            learning_rate=0.05,
            max_leaf_nodes=8,
            # Not a part of the rows put aside as soon as there are 10,000.
            early_stopping=False,
            random_state=seed,
        )
    else:
        model = {linear}
    return Pipeline([("features", _prepared({trees_argument})), ("model", model)])


def baseline(*, seed: int = 0) -> {dummy}:  # noqa: ARG001  # every estimator takes it
    """{baseline_told}"""
    return {dummy}(strategy="{strategy}")


def _prepared({trees_parameter}) -> ColumnTransformer:
    """{prepared_told}"""
'''

_NUMBERS = """    scaled = Pipeline(
        [
            ("impute", SimpleImputer(strategy="median", keep_empty_features=True)),
            ("scale", StandardScaler()),
        ]
    )
    # Trees take gaps, and numbers as they are: of rounded ones, as ONNX scales them, some would fall
    # on the other side of a threshold.
    numbers = "passthrough" if trees else scaled
"""
_CATEGORIES = """    categories = Pipeline(
        [
            ("impute", SimpleImputer(strategy="constant", fill_value=-1)),
            ("columns", OneHotEncoder(handle_unknown="ignore", sparse_output=False)),
        ]
    )
"""


def estimator(product: Product) -> str:
    """The module."""
    number = product.task is Task.REGRESSION
    names = _NUMBER if number else _CLASSES
    codes = [f.name for f in product.features if f.kind is As.CODES]
    plain = len(codes) < len(product.features)
    preprocessing = [*(["OneHotEncoder"] if codes else []), *(["StandardScaler"] if plain else [])]
    imports = {**_IMPORTS, **names, "sklearn.preprocessing": ", ".join(preprocessing)}
    text = _HEAD.format(
        name=product.name,
        imports="\n".join(f"from {m} import {n}" for m, n in sorted(imports.items())),
    )
    if codes:
        text += _CODES.format(codes=_names(tuple(codes)))
    text += _BUILD.format(
        linear_told="Ridge regression" if number else "Logistic regression",
        boosted=names["sklearn.ensemble"],
        linear="Ridge(alpha=1.0)"
        if number
        else "LogisticRegression(C=1.0, max_iter=2000, random_state=seed)",
        dummy=names["sklearn.dummy"],
        baseline_told="The mean, whatever the features say."
        if number
        else "The shares of the classes, whatever the features say.",
        strategy="mean" if number else "prior",
        trees_argument="trees=trees" if plain else "",
        trees_parameter="*, trees: bool" if plain else "",
        prepared_told=_prepared_told(codes=bool(codes), plain=plain),
    )
    if plain:
        text += _NUMBERS
    if codes:
        text += _CATEGORIES
    return text + _end(codes=bool(codes), plain=plain)


def _names(codes: tuple[str, ...]) -> str:
    return layout(codes, before=len("_CODES = "))


def _prepared_told(*, codes: bool, plain: bool) -> str:
    if not codes:
        return "Numbers, filled and scaled for the linear model."
    if not plain:
        return "A column for each category."
    return "Numbers, filled and scaled for the linear model; a column for each category."


def _end(*, codes: bool, plain: bool) -> str:
    if not codes:
        return (
            "    every = list(range(len(PROJECT.view.features)))\n"
            '    return ColumnTransformer([("numbers", numbers, every)])\n'
        )
    lines = "    names = PROJECT.view.features\n"
    lines += "    coded = [names.index(name) for name in _CODES]\n"
    if not plain:
        return lines + '    return ColumnTransformer([("categories", categories, coded)])\n'
    lines += "    others = [place for place in range(len(names)) if place not in coded]\n"
    return lines + (
        '    return ColumnTransformer([("numbers", numbers, others), '
        '("categories", categories, coded)])\n'
    )
