"""What `espalier new` tells: what it inferred, how good a first model is, and what to type next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from espalier.authoring.answers import As, Feature
from espalier.authoring.author import Added, Looked, Staged
from espalier.authoring.first_look import FirstLook
from espalier.authoring.source import Sheet
from espalier.cli.tables import steps, table, wrapped

_WIDEST = 26
_KINDS = {
    As.INTEGER: "whole number",
    As.DOUBLE: "number",
    As.TRUTH: "0 or 1",
    As.CODES: "category",
    As.DAYS: "days before",
}


def inferred(sheets: Sequence[Sheet], looked: Looked) -> str:
    """The table of what was inferred, in 80 columns."""
    found = looked.found
    count = sum(len(sheet.rows) for sheet in sheets)
    files = sheets[0].path.name if len(sheets) == 1 else f"{len(sheets)} files"
    parts = [f"{files}: {count:,} rows, {len(sheets[0].rows.columns)} columns"]
    parts += [wrapped(note, indent=2) for sheet in sheets for note in sheet.notes]
    guesses = [[g.what, _short(g.value), g.sure, g.reason] for g in found.guesses]
    parts += ["", table(["what", "value", "how sure", "why"], guesses)]
    features = found.answers.features or ()
    if features:
        rows = [[_short(f.source), f.name, _KINDS[f.kind], _told(looked, f)] for f in features]
        parts += ["", table(["column", "feature", "as", ""], _shortened(rows))]
    if found.left_out:
        rows = [[_short(name), why] for name, why in found.left_out.items()]
        parts += ["", table(["left out", "because"], rows)]
    return "\n".join(parts)


def _shortened(rows: Sequence[list[str]], most: int = 30) -> list[list[str]]:
    """Not hundreds of lines: the first ones, and how many more there are."""
    if len(rows) <= most:
        return list(rows)
    return [*rows[:most], [f"and {len(rows) - most} more", "", "", ""]]


def _short(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def _told(looked: Looked, feature: Feature) -> str:
    told = []
    profile = looked.found.profiles[feature.source]
    if feature.values:
        told.append(f"{len(feature.values)} values")
    if feature.date_format:
        told.append(feature.date_format)
    if profile.nulls:
        told.append(f"{profile.nulls / profile.rows:.1%} empty")
    return ", ".join(told)


def first_look(first: FirstLook) -> str:
    """How good the estimator is on rows that it has not seen."""
    told = (
        f"a first look: {first.metric} {first.model:.3f} on unseen rows, "
        f"the baseline has {first.baseline:.3f}"
    )
    if not first.better:
        told += "; the columns tell nothing about the label that this simple model can use"
    return f"\n{wrapped(told)}"


def next_steps(name: str, staged: Staged, shared: Sequence[str], looked: Looked) -> str:
    """What was written, and what to type."""
    cut = looked.cut
    assert cut is not None, "it was written"
    lines = ["", "written:"]
    lines += [f"  {path}/" if "." not in path else f"  {path}" for path in staged.paths]
    lines += ["added to:", *(f"  {path}" for path in shared)]
    if cut.waiting_rows:
        lines.append(f"{cut.waiting_rows:,} rows of a month that has not ended wait for add-batch")
    if cut.waiting_labels:
        lines.append(
            wrapped(f"{cut.waiting_labels:,} labels are known only after the last batch's day")
        )
    typed = [
        (f"./pants test src/python/{name}::", "its tests"),
        (f"./pants quickstart --project {name}", "the whole loop, to a prediction"),
        (f"src/python/{name}/project.py", "what it declares; change what you like"),
        ("docs/new-product.md", "where to go on"),
    ]
    return "\n".join([*lines, "", "next:", steps(typed)])


def added(batch: Added, root: Path, name: str, as_of: date) -> str:
    """What a later batch holds, and what to type."""
    rows = ", ".join(f"{count:,} rows of {table}" for table, count in batch.rows.items())
    lines = [f"{batch.folder.relative_to(root)}: {rows}"]
    lines += [
        wrapped(f"{count:,} values of {feature} are no declared category: null", indent=2)
        for feature, count in batch.unknown.items()
    ]
    return "\n".join([*lines, "next:", f"  dist/{name}-ingest.pex --as-of {as_of}"])
