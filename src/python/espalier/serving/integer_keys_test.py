"""Entities whose key is an integer: text on the wire and in the log, BIGINT in the store."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql
from pydantic import ValidationError

from churn.project import PROJECT
from espalier.contract import ColumnType
from espalier.errors import InvalidRequest
from espalier.features import layout
from espalier.postgres import embedded
from espalier.serving.core import Predictor
from espalier.serving.http_models import _question
from espalier.serving.log import PredictionLog
from espalier.serving.prediction import EntityStatus
from espalier.serving.reader import WideRowReader
from espalier.serving.testing import AS_OF, ENTITIES, create_online_table, expected_score

SMALLEST, LARGEST = str(-(2**63)), str(2**63 - 1)
# Each integer key has the features of one of the tests' entities.
KEYS = dict(zip(["0", "7", SMALLEST, LARGEST], ENTITIES[::70], strict=False))


@pytest.fixture(scope="module")
def integers():
    with embedded.temporary() as server:
        create_online_table(server.dsn())
        table = sql.Identifier(layout.SCHEMA, layout.table_name(PROJECT.name, PROJECT.view.name))
        with psycopg.connect(server.dsn()) as connection:
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE NOT user_id = ANY(%s)").format(table),
                [list(KEYS.values())],
            )
            for key, entity in KEYS.items():
                connection.execute(
                    sql.SQL("UPDATE {} SET user_id = %s WHERE user_id = %s").format(table),
                    [key, entity],
                )
            connection.execute(
                sql.SQL("ALTER TABLE {} ALTER user_id TYPE bigint USING user_id::bigint").format(
                    table
                )
            )
        yield server.dsn()


def predicted(dsn, loaded, entity_ids, **options):
    async def body():
        log, reader = PredictionLog(dsn, every_seconds=0.05), WideRowReader(dsn)
        writing = asyncio.create_task(log.run())
        predictor = Predictor(reader, name="churn", sink=log, clock=lambda: AS_OF, **options)
        predictor.model = loaded
        try:
            return await predictor.predict(entity_ids)
        finally:
            log.close()
            await writing
            await predictor.close(1)
            await reader.close()

    return asyncio.run(body())


def test_they_are_read_predicted_and_logged(integers, loaded):
    found = predicted(integers, loaded, [*KEYS, "8"])
    assert [one.entity_id for one in found] == [*KEYS, "8"]
    assert [one.score for one in found[:-1]] == pytest.approx(
        [expected_score(entity, 0.01) for entity in KEYS.values()], abs=1e-6
    )
    assert found[-1].status is EntityStatus.UNKNOWN_ENTITY
    with psycopg.connect(integers) as connection:
        logged = connection.execute("SELECT entity_id FROM espalier.predictions").fetchall()
    assert {row[0] for row in logged} == set(KEYS)


@pytest.mark.parametrize(
    "key", ["x", "7.0", "07", "-0", "+7", " 7", "7\n", "1e3", "\u0667", str(2**63)]
)
def test_what_is_no_integer_is_refused_and_hurts_nobody_else(integers, loaded, key):
    with pytest.raises(InvalidRequest, match="send an integer, written as 42"):
        predicted(integers, loaded, ["7", key], integer_keys=True)
    assert predicted(integers, loaded, list(KEYS), integer_keys=True)


def test_over_http_it_may_be_a_number_too():
    column = replace(PROJECT.table("features").column("user_id"), type=ColumnType.INTEGER)
    tables = tuple(
        replace(table, columns=tuple(column if c.name == "user_id" else c for c in table.columns))
        for table in PROJECT.tables
    )
    question = _question(replace(PROJECT, tables=tables))
    for given in ({"user_id": 7}, {"user_id": "7"}, {"entity_id": 7}):
        assert dict(question.model_validate(given))["entity_id"] == "7"
    for wrong in (True, 7.0, None, [7]):
        with pytest.raises(ValidationError):
            question.model_validate({"user_id": wrong})
    with pytest.raises(ValidationError):
        _question(PROJECT).model_validate({"user_id": 7})
