"""Entities whose key is an integer are cut into parts, scored and stored as any others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from espalier.contract import ColumnType
from espalier.ingest import tables
from espalier.postgres.connect import connect
from espalier.registry.download import FetchedModel
from espalier.scoring.score import score_with
from espalier.scoring.testing import FEATURES, JUNE, SHOP, facts, save

NAME = "counted"
KEYS = [*range(-5, 200), -(2**63), 2**63 - 1]
PROJECT = replace(
    SHOP,
    name=NAME,
    tables=tuple(
        replace(
            table,
            columns=tuple(
                replace(c, type=ColumnType.INTEGER) if c.name == "shop_id" else c
                for c in table.columns
            ),
        )
        for table in SHOP.tables
    ),
)
ROWS = facts(JUNE)[list(FEATURES)].to_numpy()[: len(KEYS)]


@pytest.fixture(scope="module")
def integers(dsn: str) -> Iterator[str]:
    with connect(dsn) as connection:
        tables.ensure(connection, PROJECT)
        made = connection.execute(
            "INSERT INTO espalier.snapshots (project, as_of, revision, digest, files, row_counts, "
            "validation, created_by) VALUES (%s, %s, 1, '', '{}', '{}', '{}', 'test') RETURNING id",
            [NAME, JUNE],
        ).fetchone()
        assert made is not None
        with connection.cursor().copy(f"COPY {NAME}.facts FROM STDIN") as stream:
            for key, (amount, visits, gap) in zip(KEYS, ROWS, strict=True):
                values = (amount, int(visits), None if np.isnan(gap) else gap)
                stream.write_row((key, JUNE, *values, f"{JUNE} 00:00Z", made[0]))
    yield dsn
    with contextlib.closing(connect(dsn)) as connection:
        connection.execute(f"DROP SCHEMA {NAME} CASCADE")
        connection.commit()


@pytest.mark.parametrize("output", ["files", "postgresql"])
def test_all_of_them_in_several_parts(
    integers: str, model: FetchedModel, pipeline: Any, tmp_path: Path, output: str
) -> None:
    own = save(tmp_path, model.path.read_bytes(), "5", project=NAME)
    own = replace(own, name=NAME)
    place = tmp_path / "scores" if output == "files" else output
    done = score_with(
        own, PROJECT, as_of=JUNE, dsn=integers, output=place, partitions=4, scheduler="threads"
    )
    assert (done.rows, done.written) == (len(KEYS), 4)
    if output == "files":
        table = pq.read_table(place)
        assert table.schema.field("shop_id").type == pa.int64()
        found = dict(zip(table["shop_id"].to_pylist(), table["score"].to_pylist(), strict=True))
    else:
        with connect(integers) as connection:
            rows = connection.execute(
                "SELECT entity_id, score FROM espalier.scores JOIN espalier.score_runs AS run "
                "ON run.id = run_id WHERE project = %s",
                [NAME],
            ).fetchall()
        found = {int(key): score for key, score in rows}
    direct = pipeline.predict_proba(ROWS)[:, 1]
    assert set(found) == set(KEYS)
    np.testing.assert_allclose([found[key] for key in KEYS], direct, atol=1e-6)
