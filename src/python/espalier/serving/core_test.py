from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from espalier.errors import (
    EntityUnknown,
    FeaturesUnavailable,
    InvalidRequest,
    ModelNotReady,
    ModelUnknown,
    ScoreInvalid,
)
from espalier.serving.core import Predictor
from espalier.serving.loading import load
from espalier.serving.prediction import EntityStatus, ModelVersion
from espalier.serving.reader import FeatureRows, WideRowReader
from espalier.serving.testing import (
    AS_OF,
    ENTITIES,
    FEATURE_TIME,
    NULLED,
    STALE,
    STALE_TIME,
    expected_score,
    features_of,
    write_model,
)


class GatedReader:
    """Features of any entity whose key is in `ENTITIES`, when the gate is open."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.reads: list[list[str]] = []
        self.failure: Exception | None = None

    async def read(self, source, keys):
        self.reads.append(list(keys))
        await self.gate.wait()
        if self.failure:
            raise self.failure
        found = tuple(key for key in keys if key in ENTITIES)
        matrix = np.array([features_of(key) for key in found]).reshape(
            len(found), len(source.features)
        )
        return FeatureRows(found, (FEATURE_TIME,) * len(found), matrix)

    async def check(self, source):
        pass


def predicting(dsn, loaded, body, **options):
    """Run `body` with a predictor over the real database and model."""

    async def run():
        reader = WideRowReader(dsn)
        predictor = Predictor(reader, name="churn", clock=lambda: AS_OF, **options)
        predictor.model = loaded
        try:
            return await body(predictor)
        finally:
            assert await predictor.close(5)
            await reader.close()

    return asyncio.run(run())


def test_known_unknown_stale_and_repeated_entities_in_the_order_asked(dsn, loaded):
    asked = ["u0100", "nobody", STALE, "u0200", "u0100"]
    found = predicting(dsn, loaded, lambda p: p.predict(asked))
    assert [p.entity_id for p in found] == asked
    assert [p.status for p in found] == [
        EntityStatus.OK,
        EntityStatus.UNKNOWN_ENTITY,
        EntityStatus.STALE_FEATURES,
        EntityStatus.OK,
        EntityStatus.OK,
    ]
    assert found[0].score == pytest.approx(expected_score("u0100", 0.01), abs=1e-6)
    assert found[2].score == pytest.approx(expected_score("u0010", 0.01), abs=1e-6)
    assert [p.prediction for p in found] == [0, 0, 0, 1, 0]
    assert [p.feature_time for p in found] == [
        FEATURE_TIME,
        None,
        STALE_TIME,
        FEATURE_TIME,
        FEATURE_TIME,
    ]
    assert found[1].score == 0
    assert {p.model for p in found} == {ModelVersion("churn", "1")}


def test_the_threshold_itself_is_positive(dsn, loaded):
    at = expected_score("u0150", 0.01)
    assert at == 0.5
    (found,) = predicting(dsn, loaded, lambda p: p.predict(["u0150"]))
    assert found.prediction == 1


def test_features_become_stale_just_after_their_time_to_live(dsn, loaded):
    ttl = timedelta(seconds=loaded.manifest.ttl_seconds)

    async def body(predictor):
        statuses = []
        for moment in (FEATURE_TIME + ttl, FEATURE_TIME + ttl + timedelta(microseconds=1)):
            predictor._clock = lambda moment=moment: moment
            statuses.append((await predictor.predict(["u0001"]))[0].status)
        return statuses

    assert predicting(dsn, loaded, body) == [EntityStatus.OK, EntityStatus.STALE_FEATURES]


@pytest.mark.parametrize("count", [1, 33, 300, 1300])
def test_any_number_of_entities_is_answered_alike(dsn, loaded, count):
    asked = [ENTITIES[n % 300] if n < 600 else f"nobody{n}" for n in range(count)]
    found = predicting(dsn, loaded, lambda p: p.predict(asked))
    assert [p.entity_id for p in found] == asked
    for p in found[:600]:
        assert p.score == pytest.approx(expected_score(p.entity_id, 0.01), abs=1e-6)
    assert all(p.status is EntityStatus.UNKNOWN_ENTITY for p in found[600:])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(asked=st.lists(st.sampled_from([*ENTITIES[:20], "nobody", STALE]), max_size=40))
def test_concurrent_callers_get_what_they_asked_for(dsn, loaded, asked):
    async def body(predictor):
        half = len(asked) // 2
        return await asyncio.gather(
            predictor.predict(asked[:half]), predictor.predict(asked[half:])
        )

    first, second = predicting(dsn, loaded, body)
    assert [p.entity_id for p in first + second] == asked
    for p in first + second:
        assert (p.status is EntityStatus.OK) == (p.entity_id in ENTITIES)


def test_one_unknown_entity_is_an_error(dsn, loaded):
    with pytest.raises(EntityUnknown, match="'nobody'") as caught:
        predicting(dsn, loaded, lambda p: p.predict_one("nobody"))
    assert caught.value.metadata == {"entity_id": "nobody"}


def test_a_null_that_the_model_cannot_take_fails_its_caller_and_no_batch_mate(dsn, loaded):
    async def body(predictor):
        return await asyncio.gather(
            *[predictor.predict([key]) for key in ("u0001", NULLED, "u0002")],
            return_exceptions=True,
        )

    one, bad, two = predicting(dsn, loaded, body)
    assert one[0].status is two[0].status is EntityStatus.OK
    assert isinstance(bad, ScoreInvalid)
    assert NULLED in str(bad)


@pytest.mark.parametrize("key", ["", "x" * 257, "a\0b", "\ud800"])
def test_a_key_that_cannot_be_one_is_refused_before_it_reaches_a_batch(dsn, loaded, key):
    async def body(predictor):
        with pytest.raises(InvalidRequest):
            await predictor.predict(["u0001", key])
        return await predictor.predict(["u0001", "Zoë 🌱", "x" * 256])

    assert len(predicting(dsn, loaded, body)) == 3


def test_too_many_entities_are_refused(dsn, loaded):
    with pytest.raises(InvalidRequest, match="11 entities"):
        predicting(dsn, loaded, lambda p: p.predict(["u0001"] * 11), max_entities=10)


def test_another_model_is_unknown_and_none_is_not_ready(dsn, loaded):
    async def body(predictor):
        assert await predictor.predict(["u0001"], model="churn")
        with pytest.raises(ModelUnknown, match="'fraud'"):
            await predictor.predict(["u0001"], model="fraud")
        predictor.model = None
        with pytest.raises(ModelNotReady):
            await predictor.predict(["u0001"])

    predicting(dsn, loaded, body)


def test_a_swap_in_mid_batch_leaves_its_answers_of_one_version(tmp_path, loaded):
    other = load("churn", "2", folder=tmp_path, manifest=write_model(tmp_path, slope=-0.01))

    async def body():
        reader = GatedReader()
        predictor = Predictor(reader, name="churn", clock=lambda: AS_OF, workers=1)
        predictor.model = loaded
        # More than one read, so the swap falls between two reads of one request.
        asked = [*ENTITIES, *(f"nobody{n}" for n in range(900))]
        first = asyncio.create_task(predictor.predict(asked))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(predictor.predict(["u0001"]))
        await asyncio.sleep(0)
        predictor.model = other
        reader.gate.set()
        assert len(await first) == 1200
        assert {p.model.version for p in await first} == {"1"}
        (after,) = await second
        assert after.model.version == "2"
        assert after.score == pytest.approx(expected_score("u0001", -0.01), abs=1e-6)
        # The small request did not wait for the large one's other reads.
        assert [len(keys) for keys in reader.reads] == [512, 1, 512, 176]
        await predictor.close(1)

    asyncio.run(body())


def test_a_failed_read_is_told_to_its_callers_and_the_next_one_works(loaded):
    async def body():
        reader = GatedReader()
        reader.gate.set()
        reader.failure = FeaturesUnavailable("gone")
        predictor = Predictor(reader, name="churn", clock=lambda: AS_OF)
        predictor.model = loaded
        results = await asyncio.gather(
            predictor.predict(["u0001"]), predictor.predict(["u0002"]), return_exceptions=True
        )
        assert all(isinstance(r, FeaturesUnavailable) for r in results)
        reader.failure = None
        assert (await predictor.predict(["u0001"]))[0].status is EntityStatus.OK
        await predictor.close(1)

    asyncio.run(body())


def test_the_model_decides_with_its_own_threshold(dsn, loaded):
    strict = replace(loaded, manifest=replace(loaded.manifest, threshold=0.9))
    (found,) = predicting(dsn, strict, lambda p: p.predict(["u0200"]))
    assert found.score < 0.9
    assert found.prediction == 0
