"""The pages of a drift check: the verdict on top of Evidently's page, and beside its values."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from html import escape
from pathlib import Path

from espalier.errors import ConfigurationError
from espalier.monitoring.evidently_adapter import ColumnDrift, Comparison

_NOTE = (
    "A column that grows with time by construction, such as tenure, always drifts against older "
    "months; the verdict therefore asks for a share of the columns."
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a check decided, with all that its pages say.

    `share` of the features drifted; the `verdict` is true when it reached `share_threshold` or the
    target drifted. `reference` and `current` describe the compared rows, `target_note` the
    compared labels.
    """

    project: str
    as_of: date
    model_version: str | None
    run_id: str
    verdict: bool
    share: float
    share_threshold: float
    columns: Mapping[str, ColumnDrift]
    target: ColumnDrift | None
    reference: str
    current: str
    target_note: str

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        drifted = sum(column.drifted for column in self.columns.values())
        if self.target is None:
            target = "no labels to compare"
        else:
            target = f"the label {'drifted' if self.target.drifted else 'did not drift'}"
        return (
            f"{'Drift' if self.verdict else 'No drift'}: {drifted} of {len(self.columns)} features "
            f"drifted (the limit is a share of {self.share_threshold:g}), {target}"
        )


def paths(reports_dir: Path, project: str, as_of: date) -> tuple[Path, Path]:
    """The HTML page and the JSON file of a day."""
    folder = reports_dir / "evidently" / project
    return folder / f"{as_of}.html", folder / f"{as_of}.json"


def write(reports_dir: Path, verdict: Verdict, comparison: Comparison) -> tuple[Path, Path]:
    """Write both files, each whole or not at all, over those of an earlier run of the day.

    The JSON is Evidently's with our verdict under the key `espalier`.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    html, values = paths(reports_dir, verdict.project, verdict.as_of)
    ours = {**asdict(verdict), "as_of": str(verdict.as_of), "headline": verdict.headline}
    page = comparison.html.replace("<body>", f"<body>{_summary(verdict)}", 1)
    try:
        _replace(values, json.dumps({**comparison.report, "espalier": ours}, allow_nan=False))
        _replace(html, page)
    except OSError as error:
        raise ConfigurationError(
            f"the drift report cannot be written to {html.parent}: {error.strerror}",
            fix="set ESPALIER_REPORTS_DIR to a folder that can be written",
        ) from error
    return html, values


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
        ("Note", _NOTE),
    ]
    about = "".join(f"<dt><b>{escape(k)}</b></dt><dd>{escape(v)}</dd>" for k, v in lines)
    drifts = [*verdict.columns.items(), *([("label", verdict.target)] if verdict.target else [])]
    rows = "".join(_row(name, drift) for name, drift in drifts)
    title = f"{verdict.project}, {verdict.as_of}: {verdict.headline}"
    return (
        '<section id="espalier" style="font-family: sans-serif; margin: 1.5em">'
        f"<h1>{escape(title)}</h1><dl>{about}</dl>"
        '<table cellpadding="4"><tr><th align="left">column</th><th align="left">method</th>'
        "<th>score</th><th>threshold</th><th>drifted</th></tr>"
        f"{rows}</table></section>"
    )


def _row(name: str, drift: ColumnDrift) -> str:
    cells = (f"{drift.score:.3f}", f"{drift.threshold:g}", "yes" if drift.drifted else "")
    numbers = "".join(f'<td align="right">{cell}</td>' for cell in cells)
    return f"<tr><td>{escape(name)}</td><td>{escape(drift.method)}</td>{numbers}</tr>"
