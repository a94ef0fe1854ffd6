from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from espalier.authoring.kinds import Kind, profile


def profiled(*values: str | None, **options: Any):
    return profile("column", pd.Series(values, dtype=object), **options)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (("1", "2", "-3"), Kind.INTEGER),
        (("1", "2.5", "1e3"), Kind.DOUBLE),
        (("1", "NA", "n/a", None), Kind.INTEGER),
        (("0", "1"), Kind.INTEGER),
        (("yes", "No"), Kind.BOOLEAN),
        (("TRUE", "false"), Kind.BOOLEAN),
        (("yes", "maybe"), Kind.TEXT),
        (("00004", "00012"), Kind.TEXT),
        (("123456789012345678901", "1"), Kind.DOUBLE),
        (("2024-01-31", None), Kind.DATE),
        (("red", "NA"), Kind.TEXT),
        ((None, "nan"), Kind.EMPTY),
    ],
)
def test_the_kind_of_a_column(values, kind):
    found = profiled(*values)
    assert found.kind is kind
    assert found.problem is None


def test_words_for_null_count_as_null_only_where_others_are_no_text():
    assert profiled("1", "NA").nulls == 1
    assert profiled("red", "NA").nulls == 0


def test_a_key_needs_every_value_once():
    assert profiled("a", "b").unique
    assert not profiled("a", "a").unique
    assert not profiled("a", None).unique


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("1", "2", "x"), "mixes numbers with text: 'x' (row 4)"),
        (("1,200.5", "3"), "has commas within numbers: '1,200.5' (row 2)"),
        (("1", "-Infinity"), "has infinite values: '-Infinity' (row 3)"),
        (
            ("2024-01-31", "31/01/2024"),
            "has dates in several formats: '2024-01-31' (row 2), '31/01",
        ),
    ],
)
def test_a_problem_names_the_first_rows(values, said):
    found = profiled(*values)
    assert found.problem is not None
    assert said in str(found.problem)


def test_what_a_person_said_wins():
    assert profiled("1", "2", "x", as_text=True).problem is None
    given = profiled("01/02/2024", "03/04/2024", formats={"column": "%d/%m/%Y"})
    assert (given.kind, given.date_format, given.problem) == (Kind.DATE, "%d/%m/%Y", None)
    wrong = profiled("01/02/2024", "2024-03-04", formats={"column": "%d/%m/%Y"})
    assert "is not all of the format %d/%m/%Y: '2024-03-04' (row 3)" in str(wrong.problem)
