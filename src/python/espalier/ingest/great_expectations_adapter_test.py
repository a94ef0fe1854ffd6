"""What we rely on in Great Expectations: an upgrade that breaks one of these breaks ingest."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import great_expectations
import pytest

from espalier.errors import EspalierError
from espalier.ingest import data_docs, source, staging, tables
from espalier.ingest.checks import Check, Kind, checks
from espalier.ingest.conftest import AS_OF, BATCH, HOTEL, write_batch
from espalier.ingest.findings import Validation
from espalier.ingest.great_expectations_adapter import validate
from espalier.postgres.connect import Connection, connect


@pytest.fixture
def validated(connection: Connection, dsn: str, tmp_path: Path) -> Callable[..., Validation]:
    """Stage a batch and validate it."""

    def run(
        its_checks: list[Check] | None = None,
        *,
        stored: Mapping[str, tuple[str, str]] | None = None,
        **changed: str,
    ) -> Validation:
        folder = write_batch(tmp_path / "batch", **changed)
        with staging.staging(connection) as place:
            for file in source.find(folder, HOTEL.tables):
                staging.load(connection, place, file)
                staging.make_typed(connection, place, file.table)
            return validate(
                checks(HOTEL, as_of=AS_OF) if its_checks is None else its_checks,
                connect=lambda: connect(dsn),
                staged={table.name: place.typed(table) for table in HOTEL.tables},
                rows=staging.count_rows(connection, place, HOTEL.tables),
                stored=stored or {},
            )

    return run


def failed(validation: Validation) -> list[tuple[Any, ...]]:
    return [
        (f.check.kind, f.check.table, f.check.columns, f.unexpected, f.first)
        for f in validation.findings
        if not f.success
    ]


def test_the_version_is_the_one_this_contract_was_written_for() -> None:
    assert great_expectations.__version__.split(".")[:2] == ["1", "24"]


def test_a_good_batch_passes_every_check(validated: Callable[..., Validation]) -> None:
    validation = validated()
    assert validation.success
    assert validation.library == f"great_expectations {great_expectations.__version__}"
    assert [f.check for f in validation.findings] == [
        check
        for name in ("rooms", "nights", "stays")
        for check in checks(HOTEL, as_of=AS_OF)
        if check.table == name
    ]
    assert {f.check.kind: f.expectation for f in validation.findings} == {
        Kind.ROWS: "expect_table_row_count_to_be_between",
        Kind.NOT_NULL: "expect_column_values_to_not_be_null",
        Kind.RANGE: "expect_column_values_to_be_between",
        Kind.ALLOWED: "expect_column_values_to_be_in_set",
        Kind.UNIQUE: "unexpected_rows_expectation",
        Kind.REFERENCE: "unexpected_rows_expectation",
    }
    assert {(f.check.table, f.observed) for f in validation.findings} == {
        ("rooms", 2),
        ("nights", 3),
        ("stays", 2),
    }


@pytest.mark.parametrize(
    ("table", "rows", "fault"),
    [
        ("rooms", "", (Kind.ROWS, "rooms", (), 1, ())),
        (
            "rooms",
            "1,single,\n2,,\n3,,\n",
            (Kind.NOT_NULL, "rooms", ("kind",), 2, ((3, None), (4, None))),
        ),
        (
            "rooms",
            "1,single,\n2,suite,\n",
            (Kind.ALLOWED, "rooms", ("kind",), 1, ((3, "suite"),)),
        ),
        (
            "rooms",
            "1,single,\n2,double,\n1,double,\n",
            (Kind.UNIQUE, "rooms", ("room",), 2, ((2, 1), (4, 1))),
        ),
        (
            "nights",
            "1,2024-01-30,-0.5,\n1,2024-01-29,1000,\n2,2024-01-30,1000.01,\n",
            (Kind.RANGE, "nights", ("price",), 1, ((4, 1000.01),)),
        ),
        (
            "nights",
            "1,2024-01-30,1,\n2,2024-01-30,2,\n1,2024-01-30,3,\n",
            (
                Kind.UNIQUE,
                "nights",
                ("room", "night"),
                2,
                ((2, "1, 2024-01-30"), (4, "1, 2024-01-30")),
            ),
        ),
        (
            "nights",
            "1,2024-01-30,1,\n7,2024-01-30,2,\n8,2024-01-30,2,\n",
            (Kind.REFERENCE, "nights", ("room",), 2, ((3, 7), (4, 8))),
        ),
    ],
)
def test_each_kind_of_fault_is_found_with_its_rows(
    validated: Callable[..., Validation], table: str, rows: str, fault: tuple[Any, ...]
) -> None:
    header = BATCH[table].split("\n")[0]
    if table == "rooms":
        # The other checks of the batch are not asked here: its nights would lack their rooms.
        some = [c for c in checks(HOTEL, as_of=AS_OF) if c.table == "rooms"]
        validation = validated(some, rooms=f"{header}\n{rows}")
    else:
        validation = validated(nights=f"{header}\n{rows}")
    assert failed(validation) == [fault]
    assert not validation.success


def test_a_date_after_the_day_is_found(validated: Callable[..., Validation]) -> None:
    validation = validated(stays="room,night,stayed\n1,2024-01-29,1\n1,2024-01-30,1\n")
    ((kind, table, columns, unexpected, first),) = failed(validation)
    assert (kind, table, columns, unexpected) == (Kind.RANGE, "stays", ("night",), 1)
    assert [(row, str(value)) for row, value in first] == [(3, "2024-01-30")]


def test_many_faults_are_counted_and_the_first_kept(validated: Callable[..., Validation]) -> None:
    rows = "".join(f"{n},2024-01-30,-9,\n" for n in range(3, 303))
    validation = validated(nights=f"room,night,price,booked\n{rows}")
    assert [
        (kind, unexpected, len(first)) for kind, _, _, unexpected, first in failed(validation)
    ] == [
        (Kind.REFERENCE, 300, 5),
        (Kind.RANGE, 300, 5),
    ]


@pytest.mark.parametrize(
    ("check", "expectation", "value"),
    [
        (
            Check(kind=Kind.ROW_CHANGE, table="nights", minimum=1, maximum=2, says=""),
            "expect_table_row_count_to_be_between",
            3,
        ),
        (
            Check(
                kind=Kind.FRESH,
                table="nights",
                columns=("night",),
                minimum=date(2024, 2, 1),
                says="",
            ),
            "expect_column_max_to_be_between",
            date(2024, 1, 31),
        ),
        (
            Check(kind=Kind.NULL_SHARE, table="nights", columns=("price",), minimum=0.7, says=""),
            "expect_column_proportion_of_non_null_values_to_be_between",
            2 / 3,
        ),
    ],
)
def test_a_check_of_a_table_says_what_was_found(
    validated: Callable[..., Validation], check: Check, expectation: str, value: Any
) -> None:
    (finding,) = validated([check]).findings
    assert (finding.success, finding.unexpected, finding.first) == (False, 1, ())
    assert (finding.expectation, finding.value) == (expectation, value)
    minimum = date(2024, 1, 31) if check.kind is Kind.FRESH else 0
    assert validated([replace(check, minimum=minimum, maximum=None)]).success


def test_an_empty_table_has_no_nulls_and_is_not_fresh(
    validated: Callable[..., Validation],
) -> None:
    empty = "room,night,price,booked\n"
    share = Check(kind=Kind.NULL_SHARE, table="nights", columns=("price",), minimum=0.5, says="")
    assert validated([share], nights=empty).success
    day = date(2024, 1, 1)
    fresh = Check(kind=Kind.FRESH, table="nights", columns=("night",), minimum=day, says="")
    assert not validated([fresh], nights=empty).success


def test_its_own_account_is_of_json_values_and_in_the_order_of_the_checks(
    validated: Callable[..., Validation],
) -> None:
    results = validated(rooms="room,kind,note\n1,single,\n2,suite,\n").results
    assert json.loads(json.dumps(results)) == results
    assert list(results) == ["rooms", "nights", "stays"]
    by_type = {
        one["expectation_config"]["type"]: one["success"] for one in results["rooms"]["results"]
    }
    assert list(by_type) == [
        "expect_table_row_count_to_be_between",
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_be_between",
        "expect_column_values_to_be_in_set",
        "expect_column_values_to_be_unique",
    ]
    assert [name for name, success in by_type.items() if not success] == [
        "expect_column_values_to_be_in_set"
    ]
    page = data_docs.page(results["rooms"])
    assert page.startswith("<!DOCTYPE html>")
    assert "suite" in page


def test_empty_tables_have_no_faulty_rows(validated: Callable[..., Validation]) -> None:
    validation = validated(stays="room,night,stayed\n")
    assert validation.success


def test_a_reference_may_be_to_a_row_stored_before(
    validated: Callable[..., Validation], connection: Connection
) -> None:
    tables.ensure(connection, HOTEL)
    connection.execute(
        "INSERT INTO espalier.snapshots (project, as_of, revision, digest, files, row_counts, "
        "validation, created_by) VALUES ('hotel', '2023-12-31', 1, '', '{}', '{}', '{}', '')"
    )
    connection.execute("INSERT INTO hotel.rooms SELECT 7, 'single', NULL, '2023-12-31', 1")
    nights = "room,night,price,booked\n7,2024-01-30,1,\n8,2024-01-30,1,\n"
    validation = validated(nights=nights, stored={"rooms": ("hotel", "rooms")})
    assert [fault[4] for fault in failed(validation)] == [((3, 8),)]


def test_a_check_that_cannot_be_evaluated_is_no_fault_of_the_data(
    validated: Callable[..., Validation],
) -> None:
    check = Check(kind=Kind.NOT_NULL, table="rooms", columns=("stars",), says="")
    with pytest.raises(
        EspalierError, match="could not evaluate expect_column_values_to_not_be_nul"
    ):
        validated([check])
    (range_check,) = (
        c for c in checks(HOTEL, as_of=AS_OF) if c.kind is Kind.RANGE and c.columns == ("price",)
    )
    with pytest.raises(
        EspalierError, match="could not evaluate expect_column_values_to_be_between"
    ):
        validated([replace(range_check, table="rooms", columns=("kind",))])


def test_it_leaves_no_file_and_no_connection_and_prints_nothing(
    validated: Callable[..., Validation],
    connection: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    working, temporary = tmp_path / "working", tmp_path / "temporary"
    working.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    validated()
    assert [*working.iterdir(), *temporary.iterdir()] == []
    assert capfd.readouterr() == ("", "")
    others = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    ).fetchall()
    assert others == []


def test_limits_and_allowed_values_are_compared_by_their_types(
    validated: Callable[..., Validation],
) -> None:
    limit = datetime(2024, 1, 2, 1, 4, tzinfo=UTC)
    validation = validated(
        [
            Check(kind=Kind.RANGE, table="nights", columns=("booked",), maximum=limit, says=""),
            Check(kind=Kind.ALLOWED, table="nights", columns=("price",), allowed=(100.0,), says=""),
            Check(kind=Kind.ALLOWED, table="stays", columns=("stayed",), allowed=(True,), says=""),
            Check(
                kind=Kind.ALLOWED,
                table="stays",
                columns=("night",),
                allowed=(date(2024, 1, 28),),
                says="",
            ),
        ]
    )
    assert [[row for row, _ in fault[4]] for fault in failed(validation)] == [[2], [2], [3], [3]]
