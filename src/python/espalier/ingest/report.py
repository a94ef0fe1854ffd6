"""Validation reports: what the checks found, as JSON and as a page that needs no other file.

Great Expectations' Data Docs stand beside them, a page for each table.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

from espalier.errors import ConfigurationError
from espalier.ingest.findings import Validation


def content(
    project: str,
    as_of: date,
    validation: Validation,
    files: Mapping[str, Mapping[str, Any]],
    *,
    contract: str,
    outcome: str,
    quarantined: Mapping[str, int],
) -> dict[str, Any]:
    """A report's content, of plain JSON values; the same findings give the same content.

    Args:
        project: The project's name.
        as_of: The batch's day.
        validation: What the checks found.
        files: By table: `name`, `sha256` and `bytes`.
        contract: The contract's digest.
        outcome: "stored" or "refused".
        quarantined: The faulty rows that were left out, by table.
    """
    return {
        "project": project,
        "as_of": as_of.isoformat(),
        "success": validation.success,
        "outcome": outcome,
        "quarantined": dict(quarantined),
        "contract": contract,
        "library": validation.library,
        "files": {table: dict(facts) for table, facts in files.items()},
        "findings": [
            {
                "table": finding.check.table,
                "columns": list(finding.check.columns),
                "check": finding.check.kind.value,
                "expectation": finding.expectation,
                "minimum": _plain(finding.check.minimum),
                "maximum": _plain(finding.check.maximum),
                "allowed": [_plain(value) for value in finding.check.allowed],
                "references": ".".join(finding.check.references or ()) or None,
                "success": finding.success,
                "observed": finding.observed,
                "unexpected": finding.unexpected,
                "first": [{"row": row, "value": _plain(value)} for row, value in finding.first],
                "value": _plain(finding.value),
            }
            for finding in validation.findings
        ],
        "great_expectations": dict(validation.results),
    }


def paths(reports_dir: Path, project: str, as_of: date) -> tuple[Path, Path]:
    """The page and the JSON file of a batch's report."""
    folder = reports_dir / "validation" / project
    return folder / f"{as_of}.html", folder / f"{as_of}.json"


def docs_path(reports_dir: Path, project: str, as_of: date, table: str) -> Path:
    """The Data Docs page of a batch's table."""
    return reports_dir / "validation" / project / as_of.isoformat() / f"{table}.html"


def write(reports_dir: Path, report: Mapping[str, Any]) -> Path:
    """Write a report's files, each as a whole or not at all; give our page's path.

    Data Docs take Great Expectations, which takes seconds to import where it is not, so they are
    left alone when they are there and the report is the one that was written with them.

    Raises:
        ConfigurationError: the folder cannot be written to.
    """
    as_of = date.fromisoformat(report["as_of"])
    page, data = paths(reports_dir, report["project"], as_of)
    docs = {
        docs_path(reports_dir, report["project"], as_of, table): result
        for table, result in report.get("great_expectations", {}).items()
    }
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        known = data.is_file() and data.read_text(encoding="utf-8") == text
        if docs and not (known and all(path.is_file() for path in docs)):
            from espalier.ingest import data_docs

            for path, result in docs.items():
                path.parent.mkdir(exist_ok=True)
                _replace(path, data_docs.page(result))
        _replace(page, render(report))
        # The last, as it says that the others are there.
        _replace(data, text)
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or page}: the report cannot be written: {error.strerror}",
            fix="set ESPALIER_REPORTS_DIR to a folder that can be written to, and run again",
        ) from error
    return page


def render(report: Mapping[str, Any]) -> str:
    """A report as an HTML page."""
    failed = sum(not finding["success"] for finding in report["findings"])
    title = escape(f"{report['project']} {report['as_of']}")
    verdict = "All checks passed" if report["success"] else f"{failed} checks failed"
    # Reports of earlier releases lack some of it.
    out = {table: count for table, count in report.get("quarantined", {}).items() if count}
    if report.get("outcome") == "refused":
        verdict += "; the batch was refused"
    elif out:
        rows = ", ".join(f"{count:,} of {table}" for table, count in out.items())
        verdict += f"; stored without the faulty rows: {rows}"
    files = "".join(
        f"<tr><td>{escape(facts.get('name', f'{table}.csv'))}</td><td>{facts['bytes']:,}</td>"
        f"<td><code>{escape(facts['sha256'])}</code></td></tr>"
        for table, facts in report["files"].items()
    )
    docs = ", ".join(
        f'<a href="{escape(report["as_of"])}/{escape(table)}.html">{escape(table)}</a>'
        for table in report.get("great_expectations", {})
    )
    docs = f"Its Data Docs (styled by the network): {docs}." if docs else ""
    # What failed stands first.
    findings = "".join(
        _row(finding) for finding in sorted(report["findings"], key=lambda f: bool(f["success"]))
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Validation of {title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0; width: 100% }}
td, th {{ border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left }}
.failed td {{ background: #fdecea }}
</style>
<h1>Validation of {title}</h1>
<p><strong>{escape(verdict)}</strong>, {len(report["findings"])} in all, by {escape(report["library"])}.
{docs}</p>
<table><tr><th>File</th><th>Bytes</th><th>sha256</th></tr>{files}</table>
<table>
<tr><th>Table</th><th>Column</th><th>Check</th><th>Rows</th><th>Unexpected</th><th>First</th></tr>
{findings}</table>
</html>
"""


def _row(finding: Mapping[str, Any]) -> str:
    limits = [
        f"{name} {finding[name]}"
        for name in ("minimum", "maximum", "references")
        if finding[name] is not None
    ]
    if finding["allowed"]:
        limits.append(f"allowed {', '.join(str(value) for value in finding['allowed'])}")
    check = finding["check"] + (f" ({', '.join(limits)})" if limits else "")
    first = "; ".join(f"row {one['row']}: {one['value']}" for one in finding["first"])
    cells = [
        finding["table"],
        ", ".join(finding["columns"]),
        check,
        f"{finding['observed']:,}",
        f"{finding['unexpected']:,}",
        first,
    ]
    kind = "" if finding["success"] else ' class="failed"'
    return f"<tr{kind}>" + "".join(f"<td>{escape(str(c))}</td>" for c in cells) + "</tr>\n"


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _replace(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        file.write(text)
    # A temporary file is its owner's alone; a report is for others to read.
    written = Path(file.name)
    written.chmod(0o644)
    written.replace(path)
