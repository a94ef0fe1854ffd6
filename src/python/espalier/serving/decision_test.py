"""The declared policies, one by one and against a real store."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from espalier.errors import ConfigurationError, EntityUnknown, FeaturesUnusable
from espalier.policies import Serving
from espalier.serving.core import Predictor
from espalier.serving.decision import Policy, decide, judge
from espalier.serving.metrics import Metrics
from espalier.serving.prediction import EntityStatus, Prediction, ScoreSource
from espalier.serving.reader import FeatureRows, WideRowReader
from espalier.serving.testing import (
    AS_OF,
    FEATURE_TIME,
    FEATURES,
    NULLED,
    STALE,
    STALE_TIME,
    features_of,
)

# The last feature is the nullable one in churn's declaration; here it is required.
LAST = FEATURES[-1]
KINDS = {
    "missing_entity": ("nobody", EntityStatus.UNKNOWN_ENTITY, EntityUnknown),
    "missing_feature": (NULLED, EntityStatus.MISSING_FEATURES, FeaturesUnusable),
    "stale_feature": (STALE, EntityStatus.STALE_FEATURES, FeaturesUnusable),
}


class FirstFeature:
    """Scores a row by its first feature, and one of a null 0.125; takes nulls, unlike ONNX's."""

    def run(self, matrix):
        return np.where(np.isnan(matrix).any(axis=1), 0.125, matrix[:, 0] / 1000)


def predicting(dsn, loaded, serving, body):
    async def run():
        reader, metrics = WideRowReader(dsn), Metrics()
        predictor = Predictor(
            reader,
            name="churn",
            policy=Policy(serving, frozenset({LAST})),
            observer=metrics.of("churn"),
            clock=lambda: AS_OF,
        )
        predictor.model = replace(loaded, scorer=FirstFeature())
        try:
            return await body(predictor), metrics
        finally:
            await predictor.close(1)
            await reader.close()

    return asyncio.run(run())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["refuse", "default", "predict"])
def test_each_policy_is_seen_in_the_answer_and_counted(dsn, loaded, kind, policy):
    entity, status, error = KINDS[kind]
    everything_else = dict.fromkeys(KINDS, "predict")
    serving = Serving(**{**everything_else, kind: policy}, default_score=0.75)

    async def body(predictor):
        batch = await predictor.predict(["u0001", entity])
        if policy == "refuse":
            with pytest.raises(error):
                await predictor.predict_one(entity)
        else:
            assert await predictor.predict_one(entity) == batch[1]
        return batch

    (fine, found), metrics = predicting(dsn, loaded, serving, body)
    assert (fine.status, fine.source) == (EntityStatus.OK, ScoreSource.MODEL)
    assert found.status is status
    by_model = 0.01 if kind == "stale_feature" else 0.125
    assert (found.source, found.score, found.prediction) == {
        "refuse": (ScoreSource.NONE, 0.0, 0.0),
        "default": (ScoreSource.DEFAULT, 0.75, 1.0),
        "predict": (ScoreSource.MODEL, pytest.approx(by_model), 0.0),
    }[policy]
    labels = {"model": "churn", "status": status.value, "source": found.source.value}
    assert metrics.registry.get_sample_value("espalier_predictions_total", labels) == 2


@pytest.mark.parametrize(
    ("stale", "missing", "status", "source"),
    [
        ("predict", "predict", EntityStatus.MISSING_FEATURES, ScoreSource.MODEL),
        ("refuse", "predict", EntityStatus.STALE_FEATURES, ScoreSource.NONE),
        ("default", "refuse", EntityStatus.MISSING_FEATURES, ScoreSource.NONE),
        ("refuse", "default", EntityStatus.STALE_FEATURES, ScoreSource.NONE),
        ("predict", "default", EntityStatus.MISSING_FEATURES, ScoreSource.DEFAULT),
    ],
)
def test_the_stricter_policy_decides_for_a_row_with_two_faults(
    loaded, stale, missing, status, source
):
    serving = Serving(stale_feature=stale, missing_feature=missing, default_score=0.5)
    matrix = np.array([[*features_of("u0001")[:-1], np.nan], features_of("u0002")])
    rows = FeatureRows(("both", "fine"), (STALE_TIME, FEATURE_TIME), matrix)
    policy = Policy(serving, frozenset({LAST}))
    judged = judge(loaded, ["fine", "both"], rows, policy, now=AS_OF)
    count = len(judged.rows.keys)
    outcomes = decide(loaded, judged, np.full(count, 0.25), np.full(count, fill_value=True))
    both, fine = outcomes["both"], outcomes["fine"]
    assert isinstance(both, Prediction)
    assert isinstance(fine, Prediction)
    assert (both.status, both.source) == (status, source)
    assert (fine.status, fine.score) == (EntityStatus.OK, 0.25)


def test_a_null_of_a_nullable_column_is_no_fault(loaded):
    matrix = np.array([[*features_of("u0001")[:-1], np.nan]])
    rows = FeatureRows(("a",), (FEATURE_TIME,), matrix)
    serving = Serving(missing_feature="refuse")
    judged = judge(loaded, ["a"], rows, Policy(serving, frozenset(FEATURES[:-1])), now=AS_OF)
    assert judged.statuses == [EntityStatus.OK]


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"missing_entity": "guess"}, "missing_entity is 'guess'"),
        ({"stale_feature": "default"}, "without a default_score"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(declared, told):
    with pytest.raises(ConfigurationError, match=told):
        Serving(**declared)


def test_explain_gives_the_features_used_and_refuses_as_predict_does(dsn, loaded):
    async def body(predictor):
        with pytest.raises(EntityUnknown):
            await predictor.explain("nobody")
        return await predictor.explain("u0001"), await predictor.explain(NULLED)

    ((found, values), (_, nulled)), _ = predicting(dsn, loaded, Serving(), body)
    assert found.score == pytest.approx(0.001)
    assert list(values.values()) == features_of("u0001")
    assert list(values) == list(FEATURES)
    assert nulled[LAST] is None
