"""Markdown, as the generated pages have it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def page(title: str, made_from: str, *parts: str) -> str:
    """A page with a line for who would change it by hand."""
    head = f"<!-- Made from {made_from} by build-support/docs/reference.py. -->\n# {title}"
    return "\n\n".join([head, *(part.strip("\n") for part in parts if part)]) + "\n"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; what would end a cell is escaped."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def code(text: str) -> str:
    """Text as code; nothing for no text."""
    return f"`{text}`" if text else ""


def _cell(text: str) -> str:
    # What stands between backticks is shown as it is.
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)
