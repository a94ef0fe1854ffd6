"""What a model of classes or of a number served, in the log."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import psycopg
import pytest

from espalier.postgres import embedded
from espalier.postgres.connect import connect
from espalier.postgres.migrate import migrate
from espalier.serving.log_rows import Served
from espalier.serving.log_writer import LogWriter, Written
from espalier.serving.reader import FeatureRows
from espalier.serving.testing import AS_OF, ENTITIES, FEATURE_TIME, features_of

CLASSES = ("low", "middle", "high")
ALL = "entity_id, score, prediction, probabilities, features, shadow, request_id"


@pytest.fixture(scope="module")
def dsn():
    with embedded.temporary() as server:
        with connect(server.dsn()) as connection:
            migrate(connection)
        yield server.dsn()


@pytest.fixture
def log(dsn):
    """Writes a batch's scores by a model of a task, and reads what is there then."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE espalier.predictions")

        def write(loaded, task, scores, *, shadow=False):
            classes = CLASSES if task == "multiclass" else ()
            manifest = replace(
                loaded.manifest, task=task, classes=classes, golden_rows=(), golden_scores=()
            )
            keys = ENTITIES[: len(scores)]
            rows = FeatureRows(
                tuple(keys),
                (FEATURE_TIME,) * len(keys),
                np.array([features_of(key) for key in keys]),
            )
            batch = Served(replace(loaded, manifest=manifest), rows, scores, AS_OF, {}, shadow)
            writer = LogWriter(dsn, sample=1, retention_days=0)
            written = writer.write([batch], AS_OF)
            writer.close()
            query = f"SELECT {ALL} FROM espalier.predictions ORDER BY entity_id, shadow"
            return batch, written, connection.execute(query).fetchall()

        yield write


def test_classes(loaded, log):
    scores = np.array([[0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.4, 0.3, 0.3]])
    batch, written, rows = log(loaded, "multiclass", scores)
    assert (written, batch.scored) == (Written(3, 0), 3)
    assert [row[:4] for row in rows] == [
        ("u0000", 0.5, 1.0, [0.2, 0.5, 0.3]),
        ("u0001", 0.7, 2.0, [0.1, 0.2, 0.7]),
        ("u0002", 0.4, 0.0, [0.4, 0.3, 0.3]),
    ]
    assert [row[4:] for row in rows] == [
        (features_of(entity), False, None) for entity in ENTITIES[:3]
    ]
    shadowed = log(loaded, "multiclass", scores[::-1], shadow=True)[2]
    assert [(row[0], row[3], row[5]) for row in shadowed][:2] == [
        ("u0000", [0.2, 0.5, 0.3], False),
        ("u0000", [0.4, 0.3, 0.3], True),
    ]


def test_what_is_no_probability_of_each_class_was_not_served(loaded, log):
    scores = np.array([[0.2, 0.5, 0.9], [np.nan, 0.2, 0.7], [1.2, -0.1, -0.1], [0.0, 0.0, 1.0]])
    batch, written, rows = log(loaded, "multiclass", scores)
    assert (written, batch.scored) == (Written(1, 0), 1)
    assert [row[:4] for row in rows] == [("u0003", 1.0, 2.0, [0.0, 0.0, 1.0])]


def test_numbers(loaded, log):
    batch, written, rows = log(loaded, "regression", np.array([-1.5, 1e300, np.inf, np.nan, 0.0]))
    assert (written, batch.scored) == (Written(3, 0), 3)
    assert [row[:4] for row in rows] == [
        ("u0000", -1.5, -1.5, None),
        ("u0001", 1e300, 1e300, None),
        ("u0004", 0.0, 0.0, None),
    ]


def test_two_classes_have_no_probabilities(loaded, log):
    rows = log(loaded, "binary", np.array([0.25, 0.5, 1.5]), shadow=True)[2]
    assert [(row[:4], row[5]) for row in rows] == [
        (("u0000", 0.25, 0.0, None), True),
        (("u0001", 0.5, 1.0, None), True),
    ]
