"""The pages of a drift check: the verdict on top of Evidently's page, and beside its values."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

from espalier.errors import ConfigurationError
from espalier.monitoring.evidently_adapter import ColumnDrift

# The page beneath a verdict that compares nothing.
EMPTY = '<!doctype html><html><head><meta charset="utf-8"></head><body></body></html>\n'


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a check decided, with all that its pages say.

    `share` of the features that are no `trends` drifted. The day's window `drifted` when that
    reached `share_threshold` or the target drifted; the `verdict` looks at `windows_drifted` of
    `windows_seen` windows, `windows_needed` are enough. `reference` and `current` describe the
    compared rows, `target_note` the compared labels. A comparison with what was served has no
    windows; its verdict is its day's. `nothing` says why nothing was compared, if so.
    """

    project: str
    as_of: date
    model_version: str | None
    run_id: str
    comparison: str
    verdict: bool
    drifted: bool
    windows_drifted: int
    windows_seen: int
    windows_needed: int
    share: float
    share_threshold: float
    columns: Mapping[str, ColumnDrift]
    trends: tuple[str, ...]
    target: ColumnDrift | None
    reference: str = ""
    current: str = ""
    target_note: str = ""
    nothing: str = ""

    def telling(self, *, reference: str, current: str, target_note: str) -> Verdict:
        """The same with what was compared in words."""
        return replace(self, reference=reference, current=current, target_note=target_note)

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        if self.nothing:
            return f"Nothing to compare: {self.nothing}"
        counted = [column for name, column in self.columns.items() if name not in self.trends]
        drifted = sum(column.drifted for column in counted)
        if self.target is None:
            target = "no labels to compare"
        else:
            target = f"the label {'drifted' if self.target.drifted else 'did not drift'}"
        return (
            f"{'Drift' if self.verdict else 'No drift'}: {drifted} of {len(counted)} features "
            f"drifted (the limit is a share of {self.share_threshold:g}), {target}; "
            f"{self.windows_drifted} of the last {self.windows_seen} windows drifted "
            f"({self.windows_needed} are needed)"
        )


def paths(reports_dir: Path, project: str, as_of: date, part: str = "") -> tuple[Path, Path]:
    """The HTML page and the JSON file of a day, or of a `part` of its check."""
    folder = reports_dir / "evidently" / project
    name = f"{as_of}-{part}" if part else str(as_of)
    return folder / f"{name}.html", folder / f"{name}.json"


def write(
    files: tuple[Path, Path],
    html: str,
    values: Mapping[str, Any],
    verdict: Verdict | None = None,
) -> None:
    """Write page and values, each whole or not at all, over those of an earlier run of the day.

    The JSON is Evidently's with our verdict, if there is one, under the key `espalier`.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    content, page = dict(values), html
    if verdict is not None:
        ours = {**asdict(verdict), "as_of": str(verdict.as_of), "headline": verdict.headline}
        content["espalier"] = ours
        page = html.replace("<body>", f"<body>{_summary(verdict)}", 1)
    try:
        _replace(files[1], json.dumps(content, allow_nan=False))
        _replace(files[0], page)
    except OSError as error:
        raise ConfigurationError(
            f"the drift report cannot be written to {files[0].parent}: {error.strerror}",
            fix="set ESPALIER_REPORTS_DIR to a folder that can be written",
        ) from error


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # mkstemp makes it private; a report is to be read by others.
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise


def _summary(verdict: Verdict) -> str:
    """The verdict as HTML that stands above Evidently's charts."""
    lines = [
        ("Reference", verdict.reference),
        ("Current", verdict.current),
        ("Target", verdict.target_note),
        ("Model version", verdict.model_version or "not given"),
        ("Run", verdict.run_id),
        (
            "Trends",
            f"declared to grow by construction, not counted: {', '.join(verdict.trends) or 'none'}",
        ),
    ]
    about = "".join(f"<dt><b>{escape(k)}</b></dt><dd>{escape(v)}</dd>" for k, v in lines)
    rows = "".join(
        _row(name, drift, counted=name not in verdict.trends)
        for name, drift in verdict.columns.items()
    )
    if verdict.target is not None:
        rows += _row("label", verdict.target, counted=True)
    title = f"{verdict.project}, {verdict.as_of}: {verdict.headline}"
    return (
        '<section id="espalier" style="font-family: sans-serif; margin: 1.5em">'
        f"<h1>{escape(title)}</h1><dl>{about}</dl>"
        '<table cellpadding="4"><tr><th align="left">column</th><th align="left">method</th>'
        "<th>score</th><th>threshold</th><th>drifted</th></tr>"
        f"{rows}</table></section>"
    )


def _row(name: str, drift: ColumnDrift, *, counted: bool) -> str:
    drifted = ("yes" if counted else "yes, a trend") if drift.drifted else ""
    cells = (f"{drift.score:.3f}", f"{drift.threshold:g}", drifted)
    numbers = "".join(f'<td align="right">{cell}</td>' for cell in cells)
    return f"<tr><td>{escape(name)}</td><td>{escape(drift.method)}</td>{numbers}</tr>"
