"""Great Expectations behind one door: checks go in, findings come out.

It reads the typed staging tables over connections of ours and keeps its state in memory. Written
for great-expectations 1.24; the test beside this module is the contract that an upgrade must pass.
Importing this module takes seconds, so it is imported where a batch is validated and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import great_expectations as gx
import great_expectations.expectations as _expectations
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.exceptions.exceptions import GreatExpectationsError
from psycopg import sql

from espalier.errors import EspalierError
from espalier.ingest.checks import Check, Kind
from espalier.ingest.faults import SHOWN
from espalier.ingest.findings import Finding, Validation
from espalier.ingest.staging import LINE, SCHEMA, WORK_MEMORY
from espalier.postgres.connect import Connection

# Its stubs export none of its expectations.
gxe: Any = _expectations

# A PostgresDatasource wants a URL and reads nothing else of it: the connection is ours, so that
# passwords, sockets and '$' signs need no second notation.
_URL = "postgresql+psycopg://espalier@connection/ours"


def validate(
    checks: Sequence[Check],
    *,
    connect: Callable[[], Connection],
    staged: Mapping[str, str],
    rows: Mapping[str, int],
    stored: Mapping[str, tuple[str, str]],
) -> Validation:
    """Run the checks on the typed staging tables.

    Args:
        checks: What to check.
        connect: Opens a connection to the database that holds the staging tables.
        staged: The staging table of each declared table.
        rows: How many rows each has.
        stored: Schema and table of the rows stored before, for each declared table that has some.

    Raises:
        EspalierError: a check could not be evaluated.
    """
    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            # Its default makes a temporary folder for a site of documents, and leaves it behind.
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
            analytics_enabled=False,
        ),
    )
    # Any, as the stubs of `add_postgres` lack `kwargs`.
    sources: Any = context.data_sources
    source = sources.add_postgres(
        "staging", connection_string=_URL, kwargs={"creator": lambda: _in_staging(connect())}
    )
    by_table: dict[str, list[Check]] = {}
    for check in checks:
        by_table.setdefault(check.table, []).append(check)
    findings: list[Finding] = []
    results: dict[str, Any] = {}
    try:
        for table, its_checks in by_table.items():
            asset = source.add_table_asset(table, table_name=staged[table])
            batch = asset.add_batch_definition_whole_table("all").get_batch()
            expectations = []
            for number, check in enumerate(its_checks):
                expectation = _expectation(check, staged, stored, rows[table])
                # Results come in an order of their own.
                expectation.meta = {"number": number}
                expectations.append(expectation)
            findings_of_table, result = _validate_table(
                batch, its_checks, expectations, rows[table]
            )
            findings += findings_of_table
            results[table] = result
    # ConnectionError is what it makes of whatever went wrong with a table's first use.
    except (GreatExpectationsError, ConnectionError) as error:
        raise EspalierError(f"Great Expectations failed: {error}") from error
    finally:
        # It makes two engines: one to look at tables, one to query them.
        source.get_engine().dispose()
        source.get_execution_engine().engine.dispose()
    return Validation(f"great_expectations {gx.__version__}", tuple(findings), results)


def _validate_table(
    batch: Any, checks: Sequence[Check], expectations: Sequence[Any], rows: int
) -> tuple[list[Finding], dict[str, Any]]:
    suite = gx.ExpectationSuite(checks[0].table, expectations=list(expectations))
    # Verdicts alone first: to ask for counts and rows doubles the queries, and as a rule nothing
    # is wrong.
    result = batch.validate(suite, result_format="BOOLEAN_ONLY")
    verdicts = sorted(
        result.results,
        key=lambda verdict: verdict.expectation_config.meta["number"],
    )
    findings = []
    for check, expectation, verdict in zip(checks, expectations, verdicts, strict=True):
        _require_evaluated(check, verdict)
        if verdict.success:
            findings.append(
                Finding(check=check, expectation=_type(verdict), success=True, observed=rows)
            )
        else:
            finding, verdict.result = _faulty(batch, check, expectation, rows)
            findings.append(finding)
    return findings, _plain(result)


def _plain(result: Any) -> dict[str, Any]:
    """A suite's result as JSON values, the same for the same findings."""
    plain: dict[str, Any] = result.to_json_dict()
    # Names of this run alone: of the staging table, and of objects that are not kept.
    for key in ("id", "batch_id", "active_batch_definition", "batch_spec", "run_id"):
        plain.pop(key, None)
        plain["meta"].pop(key, None)
    plain["meta"].pop("batch_markers", None)
    for one in plain["results"]:
        one["expectation_config"]["type"] = _known_as(one["expectation_config"]["type"])
    plain["results"].sort(key=lambda one: one["expectation_config"]["meta"]["number"])
    return plain


def _in_staging(connection: Connection) -> Connection:
    """The connection with the staging schema as its own, as an asset is named without a schema."""
    connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(SCHEMA)))
    connection.execute(sql.SQL("SET work_mem = {}").format(sql.Literal(WORK_MEMORY)))
    # Each worker would group the whole table to look for a compound key that is there twice.
    connection.execute("SET max_parallel_workers_per_gather = 0")
    connection.commit()
    return connection


def _expectation(
    check: Check, staged: Mapping[str, str], stored: Mapping[str, tuple[str, str]], rows: int
) -> Any:
    match check.kind:
        case Kind.ROWS | Kind.ROW_CHANGE:
            expectation = gxe.ExpectTableRowCountToBeBetween(
                min_value=check.minimum, max_value=check.maximum
            )
        case Kind.FRESH:
            expectation = gxe.ExpectColumnMaxToBeBetween(
                column=check.columns[0], min_value=check.minimum
            )
        case Kind.NULL_SHARE:
            # To Great Expectations a table without rows has no values, so too many nulls.
            expectation = gxe.ExpectColumnProportionOfNonNullValuesToBeBetween(
                column=check.columns[0], min_value=check.minimum if rows else 0
            )
        case Kind.NOT_NULL:
            expectation = gxe.ExpectColumnValuesToNotBeNull(column=check.columns[0])
        case Kind.RANGE:
            expectation = gxe.ExpectColumnValuesToBeBetween(
                column=check.columns[0], min_value=check.minimum, max_value=check.maximum
            )
        case Kind.ALLOWED:
            expectation = gxe.ExpectColumnValuesToBeInSet(
                column=check.columns[0], value_set=list(check.allowed)
            )
        case Kind.UNIQUE if len(check.columns) == 1:
            expectation = gxe.ExpectColumnValuesToBeUnique(column=check.columns[0])
        case Kind.UNIQUE:
            # Its own of several columns joins the whole table with its groups: twice the time.
            expectation = ExpectNoSuchRows(unexpected_rows_query=_repeated_query(check))
        case Kind.REFERENCE:
            expectation = ExpectNoSuchRows(
                unexpected_rows_query=_reference_query(check, staged, stored)
            )
    return expectation


class ExpectNoSuchRows(gxe.UnexpectedRowsExpectation):  # type: ignore[misc]  # no stubs of it
    """Rows of a query, none of which may be there: counted, and not queried again to be listed."""

    metric_dependencies = ("unexpected_rows_query.row_count",)

    def _validate(
        self,
        metrics: Mapping[str, Any],
        runtime_configuration: Any = None,  # noqa: ARG002  # the library's signature
        execution_engine: Any = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        count = metrics["unexpected_rows_query.row_count"]
        return {"success": count == 0, "result": {"observed_value": count}}


def _repeated_query(check: Check) -> str:
    """The keys that are there more than once; a null is equal to nothing."""
    query = sql.SQL(
        "SELECT {key} FROM {{batch}} WHERE {present} GROUP BY {key} HAVING count(*) > 1"
    ).format(
        key=sql.SQL(", ").join(sql.Identifier(name) for name in check.columns),
        present=sql.SQL(" AND ").join(
            sql.SQL("{} IS NOT NULL").format(sql.Identifier(name)) for name in check.columns
        ),
    )
    return query.as_string()


def _reference_query(
    check: Check, staged: Mapping[str, str], stored: Mapping[str, tuple[str, str]]
) -> str:
    """The rows whose value is neither in the batch nor in what was stored before.

    Great Expectations puts the staging table in the place of {batch}.
    """
    assert check.references is not None, "a reference check names its target"
    other, key = check.references
    places = [(SCHEMA, staged[other])] + ([stored[other]] if other in stored else [])
    column = sql.Identifier("b", check.columns[0])
    unknown = [
        sql.SQL("NOT EXISTS (SELECT 1 FROM {} AS o WHERE {} = {})").format(
            sql.Identifier(*place), sql.Identifier("o", key), column
        )
        for place in places
    ]
    query = sql.SQL(
        "SELECT {line} AS row, {column} AS value FROM (SELECT * FROM {{batch}}) AS b "
        "WHERE {column} IS NOT NULL AND {unknown} ORDER BY {line}"
    ).format(line=sql.Identifier("b", LINE), column=column, unknown=sql.SQL(" AND ").join(unknown))
    return query.as_string()


def _require_evaluated(check: Check, result: Any) -> None:
    """Great Expectations catches what a check's evaluation raises, and calls it a failure."""
    info = result.exception_info or {}
    # One mapping, or one for each metric that failed.
    every = [info] if "raised_exception" in info else info.values()
    for one in every:
        if one["raised_exception"]:
            raise EspalierError(
                f"Great Expectations could not evaluate {_type(result)} on {check.table} "
                f"({', '.join(check.columns)}): {one['exception_message']}"
            )


def _faulty(
    batch: Any, check: Check, expectation: Any, rows: int
) -> tuple[Finding, dict[str, Any]]:
    """Ask again for what a failed check found; give also the library's account of it."""
    first: list[tuple[int, Any]] = []
    value = None
    account: dict[str, Any]
    if not check.kind.of_rows:
        detail = _validate_one(batch, check, expectation, {"result_format": "BASIC"})
        unexpected, value = 1, detail["observed_value"]
        account = {"observed_value": value if isinstance(value, int | float) else str(value)}
    elif check.kind is Kind.REFERENCE or len(check.columns) > 1:
        if check.kind is Kind.UNIQUE:
            # The expectation of several columns does not tell rows in SQL.
            asked = gxe.UnexpectedRowsExpectation(unexpected_rows_query=_duplicates_query(check))
        else:
            asked = gxe.UnexpectedRowsExpectation(
                unexpected_rows_query=expectation.unexpected_rows_query
            )
        # Only COMPLETE gives the rows of a query, no more than 200 of them.
        detail = _validate_one(batch, check, asked, {"result_format": "COMPLETE"})
        unexpected = int(detail["observed_value"])
        found = detail["details"]["unexpected_rows"][:SHOWN]
        first = [(int(row["row"]), row["value"]) for row in found]
        account = {"observed_value": unexpected}
    else:
        summary = {
            "result_format": "SUMMARY",
            "partial_unexpected_count": SHOWN,
            "unexpected_index_column_names": [LINE],
        }
        detail = _validate_one(batch, check, expectation, summary)
        unexpected = int(detail["unexpected_count"])
        found = detail["partial_unexpected_index_list"]
        first = [(int(row[LINE]), row[check.columns[0]]) for row in found]
        account = {
            "element_count": rows,
            "unexpected_count": unexpected,
            "unexpected_percent": 100 * unexpected / rows,
            "partial_unexpected_list": [str(value) for _, value in first],
        }
    finding = Finding(
        check=check,
        expectation=_known_as(expectation.expectation_type),
        success=False,
        observed=rows,
        unexpected=unexpected,
        first=tuple(first),
        value=value,
    )
    return finding, account


def _validate_one(
    batch: Any, check: Check, expectation: Any, result_format: Mapping[str, Any]
) -> Any:
    result = batch.validate(expectation, result_format=result_format)
    _require_evaluated(check, result)
    return result.result


def _duplicates_query(check: Check) -> str:
    """The rows whose key is there more than once, the key's values as one text."""
    key = sql.SQL(", ").join(sql.Identifier(name) for name in check.columns)
    query = sql.SQL(
        "SELECT {line} AS row, concat_ws(', ', {key}) AS value FROM "
        "(SELECT *, count(*) OVER (PARTITION BY {key}) AS _times FROM {{batch}}) AS b "
        "WHERE _times > 1 ORDER BY {line}"
    ).format(line=sql.Identifier(LINE), key=key)
    return query.as_string()


def _type(result: Any) -> str:
    return _known_as(result.expectation_config.type)


def _known_as(kind: str) -> str:
    """The library's own name of an expectation: results are kept, and read without our class."""
    return "unexpected_rows_expectation" if kind == "expect_no_such_rows" else kind
