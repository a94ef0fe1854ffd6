from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
import pytest

from espalier.contract import Column, ColumnType
from espalier.errors import ConfigurationError
from espalier.ingest import tables
from espalier.ingest.conftest import HOTEL, ROOMS, hotel
from espalier.postgres.connect import Connection
from espalier.project import Project

_NOTE = ROOMS.column("note")


def changed(**change: Any) -> Project:
    return hotel(replace(ROOMS, **change))


def test_tables_are_made_once_and_found_as_declared(connection: Connection) -> None:
    assert tables.stored_tables(connection, HOTEL) == {}
    tables.ensure(connection, HOTEL)
    tables.ensure(connection, HOTEL)
    assert tables.stored_tables(connection, HOTEL) == {
        name: ("hotel", name) for name in ("rooms", "nights", "stays")
    }


@pytest.mark.parametrize(
    ("project", "difference"),
    [
        (
            changed(columns=(*ROOMS.columns, replace(_NOTE, name="floor"))),
            "it lacks floor",
        ),
        (changed(columns=ROOMS.columns[:2]), "it has note, not declared"),
        (
            changed(columns=(*ROOMS.columns[:2], replace(_NOTE, type=ColumnType.DATE))),
            "note is text, declared date",
        ),
        (
            changed(columns=(*ROOMS.columns[:2], replace(_NOTE, nullable=False))),
            "note is text, declared text not null",
        ),
        (changed(key=("room", "kind")), "its key is room, declared kind, room"),
    ],
)
def test_a_table_other_than_declared_is_refused_and_the_difference_named(
    connection: Connection, project: Project, difference: str
) -> None:
    tables.ensure(connection, HOTEL)
    with pytest.raises(ConfigurationError, match=difference) as caught:
        tables.ensure(connection, project)
    assert "table hotel.rooms is not as declared" in str(caught.value)


def test_another_order_of_columns_is_the_same_table(connection: Connection) -> None:
    tables.ensure(connection, HOTEL)
    tables.ensure(connection, changed(columns=ROOMS.columns[::-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {} SET {} = {}",
        "DELETE FROM {}",
        "TRUNCATE {} CASCADE",
        "DELETE FROM {} WHERE false",
    ],
)
@pytest.mark.parametrize(
    ("table", "column"),
    [("espalier.snapshots", "revision"), ("hotel.rooms", "room"), ("hotel.stays", "stayed")],
)
def test_the_database_refuses_to_change_what_is_stored(
    connection: Connection, statement: str, table: str, column: str
) -> None:
    tables.ensure(connection, HOTEL)
    with pytest.raises(psycopg.errors.RestrictViolation, match=f"{table} only grows"):
        connection.execute(statement.format(table, column, column).encode())


@pytest.mark.parametrize("name", ["espalier", "online", "staging", "public", "pg_hotel"])
def test_a_project_may_not_be_named_as_a_schema_of_others(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"project name {name}"):
        tables.check_names(replace(HOTEL, name=name))


def test_columns_and_tables_may_not_be_named_as_ours() -> None:
    column = Column(name="known_at", type=ColumnType.DATE, description="", nullable=True)
    with pytest.raises(ConfigurationError, match=r"rooms\.known_at"):
        tables.check_names(changed(columns=(*ROOMS.columns, column)))
    with pytest.raises(ConfigurationError, match="rooms_latest"):
        tables.check_names(hotel(replace(ROOMS, name="rooms_latest")))
