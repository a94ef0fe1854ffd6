"""What a range reads is what `features_at` says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest

from espalier.contract import ColumnType
from espalier.features import point_in_time
from espalier.ingest import tables
from espalier.postgres import embedded
from espalier.postgres.connect import Connection, connect
from espalier.postgres.migrate import migrate
from espalier.project import Project
from espalier.scoring.read import Features, part_features
from espalier.scoring.testing import FEATURES, JUNE, LATER, MAY, SHOP

NUMBERED = replace(
    SHOP,
    tables=tuple(
        replace(
            table,
            columns=(replace(table.columns[0], type=ColumnType.INTEGER), *table.columns[1:]),
        )
        for table in SHOP.tables
    ),
)
KEYS: dict[str, tuple[Project, list[Any]]] = {
    "text": (SHOP, ["", 'a,"b"', "ü\n", "B", "b", "ba"]),
    "integer": (NUMBERED, [-(2**63), -1, 0, 10, 9, 2**63 - 1]),
}


@pytest.fixture(params=list(KEYS))
def filled(request: pytest.FixtureRequest) -> Iterator[tuple[Connection, Project]]:
    project, keys = KEYS[request.param]
    with embedded.temporary() as server, connect(server.dsn()) as connection:
        migrate(connection)
        tables.ensure(connection, project)
        made = connection.execute(
            "INSERT INTO espalier.snapshots (project, as_of, revision, digest, files, row_counts, "
            "validation, created_by) SELECT 'shop', '1997-06-30', n, '', '{}', '{}', '{}', 'test' "
            "FROM generate_series(1, 2) AS n RETURNING id"
        ).fetchall()
        first, second = (row[0] for row in made)
        with connection.cursor() as cursor:
            for number, key in enumerate(keys):
                rows: list[tuple[Any, ...]] = [(MAY, number / 3, number, None, first)]
                if number % 2:
                    rows.append((JUNE, -1e-300 * number, 2**53 + 1, float("inf"), first))
                if number == 3:
                    rows.append((JUNE, float("nan"), -5, 0.1 + 0.2, second))
                cursor.executemany(
                    "INSERT INTO shop.facts (shop_id, day, amount, visits, gap, known_at, "
                    "snapshot_id) VALUES (%s, %s, %s, %s, %s, '1997-06-30 00:00Z', %s)",
                    [(key, *row) for row in rows],
                )
        connection.commit()
        yield connection, project


def read(
    connection: Connection,
    project: Project,
    when: date,
    first: str | None = None,
    before: str | None = None,
) -> Features:
    return part_features(connection, project, FEATURES, as_of=when, first=first, before=before)


@pytest.mark.parametrize("when", [JUNE, LATER, date(1997, 7, 20)])
def test_the_same_as_everywhere(filled: tuple[Connection, Project], when: date) -> None:
    connection, project = filled
    expected = point_in_time.features_at(connection, project, when=when)
    found = read(connection, project, when)
    assert found.keys.to_pylist() == expected["shop_id"].tolist()
    assert found.times.to_pylist() == expected["feature_time"].tolist()
    np.testing.assert_array_equal(found.matrix, expected[list(FEATURES)].to_numpy())


def test_ranges_make_the_whole(filled: tuple[Connection, Project]) -> None:
    connection, project = filled
    whole = read(connection, project, JUNE).keys.to_pylist()
    assert len(whole) == 6
    for cut in whole:
        below = read(connection, project, JUNE, before=str(cut)).keys.to_pylist()
        above = read(connection, project, JUNE, first=str(cut)).keys.to_pylist()
        assert [*below, *above] == whole
        assert cut == above[0]


def test_some_features_in_another_order(filled: tuple[Connection, Project]) -> None:
    connection, project = filled
    both = read(connection, project, JUNE).matrix
    found = part_features(
        connection, project, ("gap", "amount"), as_of=JUNE, first=None, before=None
    )
    np.testing.assert_array_equal(found.matrix, both[:, [2, 0]])
