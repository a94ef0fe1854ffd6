from __future__ import annotations

import pytest

from espalier.errors import ConfigurationError
from espalier.features import layout
from espalier.postgres.connect import Connection


def test_a_table_is_named_by_project_and_view() -> None:
    assert layout.table_name("churn", "customer_monthly") == "churn_customer_monthly"


def test_a_name_that_postgresql_would_cut_off_is_refused() -> None:
    assert len(layout.table_name("a" * 31, "b" * 31)) == 63
    with pytest.raises(ConfigurationError, match="63 bytes"):
        layout.table_name("a" * 32, "b" * 31)


def test_rows_come_for_known_keys_with_features_in_the_order_asked(database: Connection) -> None:
    database.execute(
        "CREATE TABLE online.p_v (k text PRIMARY KEY, event_timestamp timestamptz, a int, b int)"
    )
    database.execute("INSERT INTO online.p_v VALUES ('x', '2020-01-01Z', 1, 2), ('y', now(), 3, 4)")
    rows = database.execute(layout.select_rows("p", "v", "k", ["b", "a"]), [["x", "nobody"]])
    assert [(row[0], *row[2:]) for row in rows] == [("x", 2, 1)]
