from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from espalier.errors import ConfigurationError
from espalier.ingest import report
from espalier.ingest.checks import Check, Kind
from espalier.ingest.conftest import AS_OF
from espalier.ingest.findings import Finding, Validation


def content() -> Any:
    good = Check(kind=Kind.ROWS, table="rooms", says="has no rows")
    bad = Check(
        kind=Kind.RANGE, table="rooms", columns=("built",), maximum=AS_OF, says="is too late"
    )
    validation = Validation(
        "library 1",
        (
            Finding(check=good, expectation="rows", success=True, observed=2),
            Finding(
                check=bad,
                expectation="range",
                success=False,
                observed=2,
                unexpected=1,
                first=((2, "<script>alert(1)</script>"), (3, AS_OF)),
            ),
        ),
    )
    return report.content(
        "hotel",
        AS_OF,
        validation,
        {"rooms": {"name": "rooms.csv", "sha256": "abc", "bytes": 1234}},
        contract="def",
        outcome="stored",
        quarantined={"rooms": 2, "nights": 0},
    )


def test_both_files_are_written_whole(tmp_path: Path) -> None:
    page = report.write(tmp_path, content())
    folder = tmp_path / "validation" / "hotel"
    assert page == folder / "2024-01-31.html"
    assert sorted(path.name for path in folder.iterdir()) == ["2024-01-31.html", "2024-01-31.json"]
    data = json.loads((folder / "2024-01-31.json").read_text())
    assert data == content()
    assert data["success"] is False
    assert data["findings"][1]["maximum"] == "2024-01-31"
    assert data["files"] == {"rooms": {"name": "rooms.csv", "sha256": "abc", "bytes": 1234}}


def test_the_page_shows_what_failed_first_and_runs_nothing_of_the_data() -> None:
    page = report.render(content())
    assert "<script>" not in page
    assert "row 2: &lt;script&gt;alert(1)&lt;/script&gt;; row 3: 2024-01-31" in page
    assert page.index("is in its range (maximum 2024-01-31)") < page.index("has rows")
    assert "1 checks failed; stored without the faulty rows: 2 of rooms" in page


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "validation").write_text("a file in its place")
    with pytest.raises(ConfigurationError, match="the report cannot be written"):
        report.write(tmp_path, content())
