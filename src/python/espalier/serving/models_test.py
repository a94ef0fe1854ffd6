from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager

import pytest

from espalier.errors import (
    BadData,
    DependencyUnreachable,
    FeaturesUnavailable,
    ModelNotReady,
)
from espalier.processes import free_port
from espalier.serving.core import Predictor
from espalier.serving.metrics import Metrics
from espalier.serving.models import ModelKeeper
from espalier.serving.reader import WideRowReader
from espalier.serving.testing import AS_OF, FEATURES, TYPES, running_registry, write_model


@pytest.fixture
def registry():
    with running_registry() as running:
        yield running


@asynccontextmanager
async def keeping(dsn, uri, into, poll=0.02):
    reader = WideRowReader(dsn)
    metrics = Metrics()
    predictor = Predictor(reader, name="churn", observer=metrics, clock=lambda: AS_OF)
    keeper = ModelKeeper(
        predictor, tracking_uri=uri, into=into, poll_seconds=poll, observer=metrics
    )
    try:
        yield predictor, keeper, metrics
    finally:
        await predictor.close(1)
        await reader.close()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # a probe
            await asyncio.sleep(0.01)


def value(metrics, metric, **labels):
    return metrics.registry.get_sample_value(metric, labels)


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
            assert value(metrics, "espalier_model_info", name="churn", version="1") is None
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
    asyncio.run(body(f"http://127.0.0.1:{free_port()}", DependencyUnreachable, "MLflow at"))


def test_it_starts_without_a_registry_and_loads_when_one_comes(dsn, tmp_path, caplog):
    write_model(tmp_path / "one")
    port = free_port()

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
