from __future__ import annotations

import asyncio
import logging
import math
import operator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import psycopg
import pytest

from espalier.errors import (
    BadData,
    DependencyUnreachable,
    FeaturesUnavailable,
    ModelNotReady,
)
from espalier.postgres import embedded
from espalier.serving import promotions
from espalier.serving.core import Predictor
from espalier.serving.loading import load
from espalier.serving.metrics import Metrics
from espalier.serving.models import ModelKeeper
from espalier.serving.reader import FeatureRows, WideRowReader
from espalier.serving.shadow import ShadowScorer
from espalier.serving.testing import (
    AS_OF,
    FEATURE_TIME,
    FEATURES,
    TYPES,
    create_online_table,
    expected_score,
    features_of,
    running_registry,
    until,
    write_model,
)
from espalier.testing_web import NOBODY


@pytest.fixture
def registry():
    with running_registry() as running:
        yield running


@asynccontextmanager
async def keeping(dsn, uri, into, poll=0.02, shadow=None):
    reader = WideRowReader(dsn)
    metrics = Metrics()
    predictor = Predictor(reader, name="churn", observer=metrics.of("churn"), clock=lambda: AS_OF)
    keeper = ModelKeeper(
        predictor,
        tracking_uri=uri,
        into=into,
        poll_seconds=poll,
        shadow=shadow,
        observer=metrics.of("churn"),
    )
    try:
        yield predictor, keeper, metrics
    finally:
        await predictor.close(1)
        await reader.close()


def value(metrics, metric, **labels):
    return metrics.registry.get_sample_value(metric, labels or {"model": "churn"})


def test_the_champion_is_loaded_and_replaced_and_rolled_back(dsn, registry, tmp_path):
    write_model(tmp_path / "one")
    write_model(tmp_path / "two", slope=-0.01)

    async def body():
        async with keeping(dsn, registry.uri, tmp_path / "into") as (predictor, keeper, metrics):
            registry.publish("1", tmp_path / "one")
            assert await keeper.refresh()
            assert predictor.model.identity.version == "1"
            assert not await keeper.refresh()
            registry.publish("2", tmp_path / "two")
            assert await keeper.refresh()
            assert value(metrics, "espalier_model_info", name="churn", version="2") == 1
            assert not value(metrics, "espalier_model_info", name="churn", version="1")
            registry.champion = "1"
            assert await keeper.refresh()
            assert predictor.model.manifest.provenance == {"slope": "0.01"}
            assert value(metrics, "espalier_model_loaded") == 1
            assert value(metrics, "espalier_model_load_failures_total") == 0

    asyncio.run(body())


def test_a_champion_that_cannot_be_loaded_leaves_the_old_one_in_force(dsn, registry, tmp_path):
    write_model(tmp_path / "one")
    write_model(tmp_path / "bad", golden_scores=(0.9,) * 6)

    async def body():
        async with keeping(dsn, registry.uri, tmp_path / "into") as (predictor, keeper, metrics):
            registry.publish("1", tmp_path / "one")
            await keeper.refresh()
            registry.publish("2", tmp_path / "bad")
            with pytest.raises(BadData, match="golden row"):
                await keeper.refresh()
            assert predictor.model.identity.version == "1"
            assert value(metrics, "espalier_model_load_failures_total") == 1
            # It is not downloaded again with each poll.
            asked = registry.asked
            assert not await keeper.refresh()
            assert registry.asked == asked + 1
            registry.champion = "1"
            assert not await keeper.refresh()

    asyncio.run(body())


def test_a_champion_whose_features_are_not_in_the_store_does_not_replace(dsn, registry, tmp_path):
    write_model(tmp_path / "one")
    write_model(tmp_path / "two", features=("shoe_size", *FEATURES[1:]), feature_types=TYPES)

    async def body():
        async with keeping(dsn, registry.uri, tmp_path / "into") as (predictor, keeper, _):
            registry.publish("1", tmp_path / "one")
            await keeper.refresh()
            registry.publish("2", tmp_path / "two")
            with pytest.raises(FeaturesUnavailable, match="shoe_size"):
                await keeper.refresh()
            assert predictor.model.identity.version == "1"

    asyncio.run(body())


def test_no_champion_and_no_registry_are_told(dsn, registry, tmp_path):
    async def body(uri, error, text):
        async with keeping(dsn, uri, tmp_path) as (predictor, keeper, _):
            with pytest.raises(error, match=text):
                await keeper.refresh()
            assert predictor.model is None

    asyncio.run(body(registry.uri, ModelNotReady, "no champion"))
    asyncio.run(body(f"http://{NOBODY}", DependencyUnreachable, "MLflow at"))


def test_it_starts_without_a_registry_and_loads_when_one_comes(dsn, tmp_path, caplog, port):
    write_model(tmp_path / "one")

    async def body():
        uri = f"http://127.0.0.1:{port}"
        async with keeping(dsn, uri, tmp_path / "into") as (predictor, keeper, metrics):
            running = asyncio.create_task(keeper.run())
            failures = "espalier_model_load_failures_total"
            await until(lambda: value(metrics, failures) >= 3)
            assert "MLflow at" in keeper.problem
            with running_registry(port) as registry:
                registry.publish("1", tmp_path / "one")
                await until(lambda: predictor.model is not None)
                assert keeper.problem == ""
            # The registry is away again: what is loaded stays.
            before = value(metrics, failures)
            await until(lambda: value(metrics, failures) > before)
            assert predictor.model.identity.version == "1"
            running.cancel()

    with caplog.at_level(logging.WARNING, "espalier.serving.models"):
        asyncio.run(body())
    # Once for each change, not for each poll.
    assert [r.message for r in caplog.records] == ["champion not in force"] * 2


def test_an_unexpected_error_does_not_end_the_polling(dsn, registry, tmp_path, monkeypatch):
    write_model(tmp_path / "one")
    registry.publish("1", tmp_path / "one")

    async def body():
        async with keeping(dsn, registry.uri, tmp_path / "into") as (predictor, keeper, _):
            # A folder that cannot be made: the place is a file.
            (tmp_path / "into").write_text("")
            running = asyncio.create_task(keeper.run())
            await until(lambda: "internal error" in keeper.problem)
            (tmp_path / "into").unlink()
            await until(lambda: predictor.model is not None)
            running.cancel()

    asyncio.run(body())


def test_a_step_back_needs_no_download(dsn, registry, tmp_path):
    write_model(tmp_path / "one")
    write_model(tmp_path / "two", slope=-0.01)

    async def body():
        async with keeping(dsn, registry.uri, tmp_path / "into") as (predictor, keeper, _):
            registry.publish("1", tmp_path / "one")
            await keeper.refresh()
            first = predictor.model
            registry.publish("2", tmp_path / "two")
            await keeper.refresh()
            registry.champion = "1"
            registry.folders.clear()
            asked = registry.asked
            assert await keeper.refresh()
            assert predictor.model is first
            assert registry.asked == asked + 1

    asyncio.run(body())


def promote(dsn, payload):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_notify('espalier_promotion', %s)", [payload])


def listeners(dsn):
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'espalier-promotions' "
            "AND query LIKE 'LISTEN%' HAVING count(*) > 0"
        ).fetchone()


def test_word_of_a_promotion_swaps_at_once_though_polls_are_rare(registry, tmp_path):
    write_model(tmp_path / "one")
    write_model(tmp_path / "two", slope=-0.01)

    async def body(dsn):
        async with keeping(dsn, registry.uri, tmp_path / "into", poll=3600) as (
            predictor,
            keeper,
            _,
        ):
            registry.publish("1", tmp_path / "one")
            tasks = [
                asyncio.create_task(keeper.run()),
                asyncio.create_task(promotions.listen(dsn, {"churn": keeper.promoted})),
            ]
            await until(lambda: predictor.model is not None)
            await until(lambda: listeners(dsn))
            for payload in ('{"project": "other", "version": "2"}', "no JSON", "[]", "{}"):
                promote(dsn, payload)
            # The word may come before the registry shows it.
            promote(dsn, '{"project": "churn", "version": "2"}')
            await asyncio.sleep(0.1)
            assert predictor.model.identity.version == "1"
            registry.publish("2", tmp_path / "two")
            await until(lambda: predictor.model.identity.version == "2")
            # After its connection was lost it listens again.
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'espalier-promotions'"
                )
            await until(lambda: not listeners(dsn))
            await until(lambda: listeners(dsn))
            registry.champion = "1"
            promote(dsn, '{"project": "churn", "version": "1"}')
            await until(lambda: predictor.model.identity.version == "1")
            for task in tasks:
                task.cancel()

    # Its own database: the tests' server listens in the other one.
    with embedded.temporary() as server:
        create_online_table(server.dsn())
        asyncio.run(body(server.dsn()))


class Log:
    def __init__(self):
        self.rows = {}

    def record(self, model, rows, scores, at, origins, *, shadow=False):
        assert shadow
        assert at == AS_OF
        self.rows |= {
            key: (model.identity.version, score, origins[key])
            for key, score in zip(rows.keys, scores.tolist(), strict=True)
        }


def test_a_challenger_scores_the_same_rows_until_it_goes(dsn, registry, tmp_path):
    write_model(tmp_path / "one")
    write_model(tmp_path / "two", slope=-0.01)
    # It takes another set of features, which are read for it.
    write_model(
        tmp_path / "three",
        features=tuple(reversed(FEATURES)),
        feature_types=tuple(reversed(TYPES)),
        golden_rows=(),
        golden_scores=(),
    )
    write_model(tmp_path / "bad", golden_scores=(0.9,) * 6)

    async def body():
        log = Log()
        reader = WideRowReader(dsn)
        shadow = ShadowScorer(reader, log, observer=Metrics().of("churn"))
        async with keeping(dsn, registry.uri, tmp_path / "into", shadow=shadow) as (
            predictor,
            keeper,
            metrics,
        ):
            predictor._shadow = shadow
            running = asyncio.create_task(shadow.run())
            registry.publish("1", tmp_path / "one")
            await keeper.refresh()
            await predictor.predict(["u0001"])
            for version, folder in (("2", "two"), ("3", "three")):
                registry.folders[version] = tmp_path / folder
                registry.challenger = version
                await keeper.refresh_challenger()
                assert value(metrics, "espalier_challenger_loaded") == 1
                await predictor.predict([f"u000{version}"])
                await until(partial(operator.contains, log.rows, f"u000{version}"))
            registry.folders["4"], registry.challenger = tmp_path / "bad", "4"
            await keeper.refresh_challenger()
            assert shadow.model is None
            assert value(metrics, "espalier_challenger_loaded") == 0
            registry.challenger = "1"
            await keeper.refresh_challenger()
            await predictor.predict(["u0009"])
            registry.challenger = None
            await keeper.refresh_challenger()
            await predictor.predict(["u0008"])
            running.cancel()
            await reader.close()
        return log.rows

    rows = asyncio.run(body())
    assert set(rows) == {"u0002", "u0003"}
    assert rows["u0002"] == ("2", pytest.approx(expected_score("u0002", -0.01), abs=1e-6), None)
    version, score, _ = rows["u0003"]
    # Its first feature is the champion's last, the number of the entity and that of its place.
    assert version == "3"
    assert score == pytest.approx(
        1 / (1 + math.exp(-0.01 * (3 + len(FEATURES) - 1 - 150))), abs=1e-6
    )


class Broken:
    def run(self, matrix):  # noqa: ARG002  # of the scorer's interface
        raise ValueError("out of order")


def test_a_shadow_that_is_behind_drops_and_one_that_fails_goes_on(dsn, loaded, tmp_path, caplog):
    other = load("churn", "2", folder=tmp_path, manifest=write_model(tmp_path, slope=-0.01))

    async def body():
        log, metrics = Log(), Metrics()
        shadow = ShadowScorer(WideRowReader(dsn), log, max_rows=3, observer=metrics.of("churn"))

        def outcome(kind):
            name = "espalier_shadow_predictions_total"
            return value(metrics, name, model="churn", outcome=kind)

        def offer(*keys):
            matrix = np.array([features_of(key) for key in keys])
            rows = FeatureRows(keys, (FEATURE_TIME,) * len(keys), matrix)
            shadow.offer(loaded, rows, AS_OF, dict.fromkeys(keys))

        offer("u0001")
        shadow.model = other
        offer("u0002", "u0003")
        offer("u0004", "u0005")
        assert outcome("dropped") == 2
        running = asyncio.create_task(shadow.run())
        await until(lambda: outcome("scored") == 2)
        shadow.model = replace(other, scorer=Broken())
        offer("u0006")
        await until(lambda: outcome("failed") == 1)
        shadow.model = other
        offer("u0007")
        await until(lambda: outcome("scored") == 3)
        running.cancel()
        return set(log.rows)

    assert asyncio.run(body()) == {"u0002", "u0003", "u0007"}
