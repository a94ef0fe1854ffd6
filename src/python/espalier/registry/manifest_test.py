from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from espalier.errors import BadData
from espalier.registry.manifest import ModelManifest

BINARY = ModelManifest(
    project="churn",
    join_key="user_id",
    view="monthly",
    features=("orders", "spend"),
    feature_types=("bigint", "double precision"),
    ttl_seconds=3600.0,
    threshold=0.5,
    file="model.onnx",
    digest="d" * 64,
    golden_rows=((1.0, None), (2.0, 3.0)),
    golden_scores=(0.25, 0.75),
)
WINE = replace(
    BINARY,
    task="multiclass",
    classes=("red", "white", "rosé"),
    golden_scores=((0.7, 0.2, 0.1), (0.1, 0.1, 0.8)),
)
PRICES = replace(BINARY, task="regression", golden_scores=(-2e5, 1e5))


@pytest.mark.parametrize("manifest", [BINARY, WINE, PRICES], ids=lambda m: m.task)
def test_what_was_stored_is_read_again(manifest: ModelManifest) -> None:
    assert ModelManifest.from_json(manifest.to_json()) == manifest


def test_a_manifest_of_an_earlier_release_is_of_two_classes() -> None:
    values = asdict(BINARY)
    del values["task"], values["classes"]
    assert ModelManifest.from_json(json.dumps(values)) == BINARY


@pytest.mark.parametrize(
    "changes",
    [{"task": "ranking"}, {"classes": ["a", "b", "c"]}, {"task": "multiclass"}, {"more": 1}],
)
def test_what_this_release_does_not_know_is_bad_data(changes: dict[str, object]) -> None:
    text = json.dumps(asdict(BINARY) | changes)
    with pytest.raises(BadData, match=r"manifest\.json of the model is not valid"):
        ModelManifest.from_json(text)


def test_a_number_may_be_off_by_a_part_of_the_largest() -> None:
    assert BINARY.golden_tolerance == WINE.golden_tolerance == 1e-5
    assert PRICES.golden_tolerance == pytest.approx(2.0)
