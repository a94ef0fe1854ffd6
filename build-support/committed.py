"""Files that are made from something else and committed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def renew(root: Path, made: Mapping[Path, str]) -> int:
    """Write those that are not as made, and tell of each.

    Args:
        root: The repository.
        made: The texts, by their paths in it.

    Returns:
        The exit code.
    """
    for path, content in made.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_text() != content:
            file.write_text(content)
            print(f"wrote {path}")
    return 0
