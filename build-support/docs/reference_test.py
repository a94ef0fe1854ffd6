"""What is committed is what the code makes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import reference
from docs.markup import table
from espalier.errors import EspalierError
from espalier.monitoring.exported import METRICS

RENDERED = reference.rendered(Path.cwd())


@pytest.mark.parametrize("path", list(RENDERED), ids=str)
def test_it_is_current(path):
    told = f"{path} is old: ./pants run build-support/docs/reference.py"
    assert path.read_text() == RENDERED[path], told


def test_nothing_else_is_committed_beside_it():
    assert {*Path("docs/reference").iterdir()} == {*RENDERED, Path("docs/reference/index.md")}


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("settings", "| `POSTGRES_PORT` | `5432` | PostgreSQL's port |"),
        ("settings", "holds &lt;project>/month_NNN/&lt;table>.csv"),
        ("commands", "#### espalier.pex models rollback"),
        (
            "commands",
            "| `--as-of YYYY-MM-DD` | The day whose knowledge is trained on. (required) |",
        ),
        ("commands", "## churn-server.pex"),
        ("contract", "| `StreamPredict` | `stream StreamPredictRequest` |"),
        ("contract", "| `metrics` | `map<string, double>` | 4 |"),
        ("contract", "`ENTITY_STATUS_UNSPECIFIED`"),
        ("metrics", "`espalier_requests_total` | counter | `transport`, `method`, `code` |"),
        ("metrics", "`espalier_exporter_up` | gauge |"),
        ("errors", "| `MODEL_NOT_READY` | `UNAVAILABLE` | 503 | 3 | No model is loaded yet. |"),
    ],
)
def test_what_a_reader_looks_for(page, told):
    assert told in RENDERED[reference.FOLDER / f"{page}.md"]


def test_every_element_says_what_it_means():
    """An empty last cell would be one without a comment, a help or a docstring."""
    for path, text in RENDERED.items():
        assert re.findall(r"^\|.*\| +\|$", text, re.MULTILINE) == [], path


def test_every_metric_and_error_has_its_line():
    metrics, errors = (RENDERED[reference.FOLDER / f"{name}.md"] for name in ("metrics", "errors"))
    assert [one.name for one in METRICS if f"| `espalier_{one.name}` |" not in metrics] == []
    kinds = [*EspalierError.__subclasses__()]
    assert kinds
    assert [kind.reason for kind in kinds if f"| `{kind.reason}` |" not in errors] == []


def test_a_cell_ends_where_it_ends():
    assert table(["a"], [["x | <y>\n`<z>`"]]).splitlines()[2] == "| x \\| &lt;y> `<z>` |"
