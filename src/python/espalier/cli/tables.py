"""Plain text for a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from espalier.cli.console import COLUMNS


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their content; the last one is wrapped when it does not fit."""
    every = [list(titles), *map(list, rows)]
    widths = [max(len(row[place]) for row in every) for place in range(len(titles) - 1)]
    indent = sum(widths) + 2 * len(widths)
    lines = []
    for row in every:
        start = "".join(f"{text:<{width + 2}}" for text, width in zip(row, widths, strict=False))
        lines.append(wrapped(row[-1], first=start, indent=min(indent, COLUMNS // 2)))
    return "\n".join(line.rstrip() for line in lines)


def steps(rows: Sequence[tuple[str, str]]) -> str:
    """What to type and what it does, a line each; the explanation is wrapped."""
    width = max(len(what) for what, _ in rows)
    return "\n".join(
        wrapped(why, first=f"  {what:<{width}}   ", indent=width + 5) for what, why in rows
    )


def wrapped(text: str, *, first: str = "", indent: int = 0) -> str:
    """Text after what begins its first line, the other lines indented; long words stay whole."""
    lines = textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=first,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines) if lines else first.rstrip()
