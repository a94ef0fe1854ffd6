"""Validation reports: what the checks found, as JSON and as a page that needs no other file."""

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
from espalier.ingest.source import FileFacts


def content(
    project: str, as_of: date, validation: Validation, files: Mapping[str, FileFacts]
) -> dict[str, Any]:
    """A report's content, of plain JSON values; the same findings give the same content."""
    return {
        "project": project,
        "as_of": as_of.isoformat(),
        "success": validation.success,
        "library": validation.library,
        "files": {
            table: {"sha256": facts.sha256, "bytes": facts.size} for table, facts in files.items()
        },
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
            }
            for finding in validation.findings
        ],
    }


def paths(reports_dir: Path, project: str, as_of: date) -> tuple[Path, Path]:
    """The page and the JSON file of a batch's report."""
    folder = reports_dir / "validation" / project
    return folder / f"{as_of}.html", folder / f"{as_of}.json"


def write(reports_dir: Path, report: Mapping[str, Any]) -> Path:
    """Write a report's two files, each as a whole or not at all; give the page's path.

    Raises:
        ConfigurationError: the folder cannot be written to.
    """
    page, data = paths(reports_dir, report["project"], date.fromisoformat(report["as_of"]))
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        _replace(data, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        _replace(page, render(report))
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
    files = "".join(
        f"<tr><td>{escape(table)}.csv</td><td>{facts['bytes']:,}</td>"
        f"<td><code>{escape(facts['sha256'])}</code></td></tr>"
        for table, facts in report["files"].items()
    )
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
<p><strong>{verdict}</strong>, {len(report["findings"])} in all, by {escape(report["library"])}.</p>
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
