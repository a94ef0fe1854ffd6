"""The Feast reader over a real Feast store, compared with the wide-row reader."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from churn.project import PROJECT
from espalier.errors import ConfigurationError, FeaturesUnavailable
from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.serving.feast_reader import FeastReader
from espalier.serving.reader import FeatureSource, WideRowReader
from espalier.serving.testing import (
    ENTITIES,
    FEATURE_TIME,
    FEATURES,
    NULLED,
    STALE,
    STALE_TIME,
    TYPES,
    expected_score,
    features_of,
)
from espalier.serving.testing_server import serving

SOURCE = FeatureSource("churn", PROJECT.view.name, "user_id", FEATURES)


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """A Feast repository with SQLite as its online store, holding what the wide-row table does."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64, Int64, String

    folder = tmp_path_factory.mktemp("repo")
    (folder / "feature_store.yaml").write_text(
        "project: churn\nprovider: local\nregistry: registry.db\n"
        "online_store:\n  type: sqlite\n  path: online.db\n"
        "offline_store:\n  type: file\nentity_key_serialization_version: 3\n"
    )
    rows = [(e, FEATURE_TIME, *features_of(e)) for e in ENTITIES]
    rows.append((STALE, STALE_TIME, *features_of("u0010")))
    rows.append((NULLED, FEATURE_TIME, *features_of("u0010")[:-1], None))
    frame = pd.DataFrame(rows, columns=["user_id", "event_timestamp", *FEATURES])
    for name, kind in zip(FEATURES, TYPES, strict=True):
        frame[name] = frame[name].astype("int64" if kind == "bigint" else "float64")
    frame.to_parquet(folder / "features.parquet")
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    view = FeatureView(
        name=PROJECT.view.name,
        entities=[user],
        ttl=timedelta(0),
        schema=[
            Field(name="user_id", dtype=String),
            *(
                Field(name=name, dtype=Int64 if kind == "bigint" else Float64)
                for name, kind in zip(FEATURES, TYPES, strict=True)
            ),
        ],
        source=FileSource(path=str(folder / "features.parquet"), timestamp_field="event_timestamp"),
    )
    store = FeatureStore(repo_path=str(folder))
    store.apply([user, view])
    store.write_to_online_store(PROJECT.view.name, frame)
    return folder


def read(reader, keys):
    async def body():
        try:
            rows = await reader.read(SOURCE, keys)
        finally:
            await reader.close()
        order = sorted(range(len(rows.keys)), key=lambda place: rows.keys[place])
        return rows.take(order)

    return asyncio.run(body())


def test_both_readers_give_the_same_rows(dsn, repo):
    asked = ["nobody", STALE, NULLED, *ENTITIES[:50]]
    ours, feasts = read(WideRowReader(dsn), asked), read(FeastReader(repo), asked)
    assert len(ours.keys) == len(asked) - 1
    assert ours.keys == feasts.keys
    assert ours.times == feasts.times
    np.testing.assert_array_equal(ours.matrix, feasts.matrix)


def test_nothing_known_and_nothing_asked_give_no_rows(repo):
    assert read(FeastReader(repo), ["nobody"]).matrix.shape == (0, len(FEATURES))
    assert read(FeastReader(repo), []).matrix.shape == (0, len(FEATURES))


def test_a_view_or_store_that_is_not_there_is_unavailable(repo):
    async def body(source):
        reader = FeastReader(repo)
        with pytest.raises(FeaturesUnavailable, match="cannot be read"):
            await reader.check(source)
        await reader.close()

    asyncio.run(body(FeatureSource("churn", "no_such_view", "user_id", FEATURES)))
    asyncio.run(body(FeatureSource("churn", PROJECT.view.name, "user_id", ("no_such_feature",))))


def test_a_folder_without_a_store_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigurationError, match="Feast cannot use"):
        FeastReader(tmp_path)


def test_a_server_over_it_predicts_as_over_the_wide_rows(dsn, registry, repo, tmp_path):
    with serving(dsn, registry.uri, tmp_path, "--feature-repo", str(repo)) as running:
        running.until(running.is_ready, seconds=90)
        answer = running.stub.Predict(pb.PredictRequest(entity_id="u0200"), timeout=20)
        assert answer.score == pytest.approx(expected_score("u0200", 0.01), abs=1e-6)
        assert answer.feature_time.ToDatetime() == FEATURE_TIME.replace(tzinfo=None)
        asked = pb.BatchPredictRequest(entity_ids=["nobody", STALE, "u0001"])
        statuses = [p.status for p in running.stub.BatchPredict(asked, timeout=20).predictions]
        assert statuses == [
            pb.ENTITY_STATUS_UNKNOWN_ENTITY,
            pb.ENTITY_STATUS_STALE_FEATURES,
            pb.ENTITY_STATUS_OK,
        ]


def test_without_the_option_feast_is_not_imported():
    program = "import sys, espalier.serving.server; print('feast' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
