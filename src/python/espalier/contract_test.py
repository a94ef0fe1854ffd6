from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from espalier.contract import Column, ColumnType, Table, contract_digest, contract_json
from espalier.errors import ConfigurationError

ROOM = Column(name="room", type=ColumnType.INTEGER, description="its number")
ROOMS = Table(name="rooms", key=("room",), columns=(ROOM,))


def test_a_contract_is_plain_json_without_what_is_default() -> None:
    nights = Table(
        name="nights",
        key=("night",),
        event_time="night",
        max_age=timedelta(hours=1),
        columns=(
            Column(
                name="night",
                type=ColumnType.DATE,
                description="its evening",
                allowed=("2024-01-31",),
            ),
        ),
    )
    assert contract_json([ROOMS, nights]) == [
        {
            "name": "nights",
            "key": ["night"],
            "event_time": "night",
            "max_age": 3600.0,
            "columns": [
                {
                    "name": "night",
                    "type": "date",
                    "description": "its evening",
                    "allowed": ["2024-01-31"],
                }
            ],
        },
        {
            "name": "rooms",
            "key": ["room"],
            "columns": [{"name": "room", "type": "bigint", "description": "its number"}],
        },
    ]


def test_the_digest_is_of_what_is_declared_and_not_of_its_order() -> None:
    other = replace(ROOMS, name="others")
    digest = contract_digest([ROOMS, other])
    # Databases hold it: the form must not change.
    assert (
        contract_digest([ROOMS])
        == "bcdc955e5379da8e5bfa760e894edcc2a8ec4cca5371eae7890bfce96801c4cc"
    )
    assert contract_digest([other, ROOMS]) == digest
    assert contract_digest([ROOMS, replace(other, max_fault_share=0.5)]) != digest
    assert contract_digest([ROOMS, replace(other, columns=(replace(ROOM, minimum=1),))]) != digest


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("column", {"max_null_share": 0.5}, "column room declares max_null_share 0.5; .* nullable"),
        ("column", {"max_null_share": 2, "nullable": True}, "declares max_null_share 2"),
        ("table", {"max_fault_share": 1.5}, "table rooms declares max_fault_share 1.5; declare a"),
        ("table", {"max_row_change": -1}, "table rooms declares a max_row_change below 0"),
        ("table", {"max_age": timedelta(1)}, "table rooms declares a max_age; declare its event_"),
    ],
)
def test_a_limit_that_nothing_can_meet_is_refused(
    kind: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        replace(ROOM if kind == "column" else ROOMS, **change)


def test_the_contract_takes_no_library() -> None:
    code = (
        "import sys, espalier.contract; "
        "sys.exit(any(name in sys.modules for name in ('psycopg', 'pandas', 'numpy')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False
    )
    assert done.returncode == 0
