"""Batches whose label is a class or a number, through Great Expectations and into the history."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from espalier.contract import ColumnType
from espalier.errors import BadData
from espalier.ingest.checks import Kind, checks
from espalier.ingest.conftest import AS_OF, HOTEL, STAYS, Run, write_batch
from espalier.policies import Gate
from espalier.postgres.connect import Connection
from espalier.project import Project

HEAD = "room,night,stayed\n"


def hotel(kind: ColumnType, classes: tuple[str, ...] = (), *, share: float = 0.0) -> Project:
    """The hotel, with another label."""
    columns = tuple(
        replace(column, type=kind) if column.name == "stayed" else column
        for column in STAYS.columns
    )
    stays = replace(STAYS, columns=columns, max_fault_share=share)
    return replace(
        HOTEL,
        tables=(*HOTEL.tables[:2], stays),
        label=replace(HOTEL.label, classes=classes),
        gate=Gate(),
    )


SIZED = hotel(ColumnType.TEXT, ("one night", "some", "many, many"))


def stored(connection: Connection) -> list[Any]:
    rows = connection.execute("SELECT stayed FROM hotel.stays ORDER BY room").fetchall()
    return [value for (value,) in rows]


@pytest.mark.parametrize(
    ("project", "labels"),
    [
        (SIZED, {'"many, many"': "many, many", "some": "some"}),
        (hotel(ColumnType.INTEGER, ("3", "1", "2")), {"1": 1, "+3": 3}),
        (hotel(ColumnType.DOUBLE), {"-1.5e3": -1500.0, "0.1": 0.1}),
        (hotel(ColumnType.INTEGER), {"-7": -7, "9000000000": 9_000_000_000}),
    ],
    ids=["text", "classes that are numbers", "doubles", "integers"],
)
def test_labels_of_each_kind(
    run: Run,
    connection: Connection,
    tmp_path: Path,
    project: Project,
    labels: dict[str, Any],
) -> None:
    stays = HEAD + "".join(f"{n},2024-01-2{n},{text}\n" for n, text in enumerate(labels, 1))
    done = run(write_batch(tmp_path / "batch", stays=stays), project=project)
    assert (done.status, done.rows["stays"]) == ("stored", 2)
    assert stored(connection) == list(labels.values())


def test_a_label_of_no_class_refuses_the_batch(run: Run, tmp_path: Path) -> None:
    source = write_batch(tmp_path / "batch", stays=HEAD + "1,2024-01-28,lots\n2,2024-01-29,some\n")
    with pytest.raises(BadData, match="'lots' is none of one night, some, many, many"):
        run(source, project=SIZED)


def test_or_waits_in_the_quarantine(run: Run, connection: Connection, tmp_path: Path) -> None:
    project = hotel(ColumnType.INTEGER, ("1", "2", "3"), share=0.5)
    source = write_batch(tmp_path / "batch", stays=HEAD + "1,2024-01-28,4\n2,2024-01-29,2\n")
    done = run(source, project=project)
    assert done.quarantined == {"stays": 1}
    assert stored(connection) == [2]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999", "a few"])
def test_a_number_that_is_none(run: Run, tmp_path: Path, text: str) -> None:
    source = write_batch(tmp_path / "batch", stays=HEAD + f"1,2024-01-28,{text}\n")
    with pytest.raises(BadData, match=f"'{text}' is not a number"):
        run(source, project=hotel(ColumnType.DOUBLE))


def test_parquet(run: Run, connection: Connection, tmp_path: Path) -> None:
    source = write_batch(tmp_path / "batch")
    (source / "stays.csv").unlink()
    night = [AS_OF - timedelta(days=3)] * 2
    table = pa.table({"room": [1, 2], "night": night, "stayed": ["some", "one night"]})
    pq.write_table(table, source / "stays.parquet")
    run(source, project=SIZED)
    assert stored(connection) == ["some", "one night"]


def test_a_label_may_be_of_its_batch_s_own_day(
    run: Run, connection: Connection, tmp_path: Path
) -> None:
    """With a horizon of 0 it is known when its time is."""
    at_once = replace(SIZED, label=replace(SIZED.label, horizon=timedelta(0)))
    stays = HEAD + f"1,{AS_OF},some\n2,2024-01-29,some\n"
    source = write_batch(tmp_path / "batch", stays=stays)
    with pytest.raises(BadData, match="is after 2024-01-29"):
        run(source, project=SIZED)
    run(source, project=at_once)
    known = connection.execute("SELECT bool_and(known_at = night) FROM hotel.stays").fetchone()
    assert known == (True,)


def test_classes_are_allowed_values_of_the_columns_type() -> None:
    project = hotel(ColumnType.INTEGER, ("3", "1", "2"))
    found = {c.table: c.allowed for c in checks(project, as_of=AS_OF) if c.kind is Kind.ALLOWED}
    assert found == {"rooms": ("single", "double"), "stays": (3, 1, 2)}
