"""Which of the template's files go over, by the list in copier.yml as copier reads it."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

_PATTERN = re.compile(r'^  - "(.+)"$')


def kept(template: Path) -> list[str]:
    """The paths of the files that copier renders, sorted."""
    patterns = excluded(template / "copier.yml")
    found = []
    for folder, folders, files in os.walk(template):
        inside = Path(folder).relative_to(template).as_posix()
        names = {name: f"{inside}/{name}".removeprefix("./") for name in [*folders, *files]}
        folders[:] = [name for name in folders if not is_excluded(names[name], patterns)]
        found += [names[name] for name in files if not is_excluded(names[name], patterns)]
    return sorted(found)


def excluded(settings: Path) -> list[str]:
    """The patterns of `_exclude`: each a quoted path from the root, which `*` and `!` may be in."""
    lines = settings.read_text("utf-8").partition("\n_exclude:\n")[2].splitlines()
    return [found[1] for line in lines if (found := _PATTERN.match(line))]


def is_excluded(path: str, patterns: list[str]) -> bool:
    """Whether the last pattern that fits the path, or a folder above it, keeps it back."""
    verdict = False
    for pattern in patterns:
        wanted = pattern.removeprefix("!").removeprefix("/")
        if fits(path, wanted) or fits(path, f"{wanted}/**"):
            verdict = not pattern.startswith("!")
    return verdict


def fits(path: str, pattern: str) -> bool:
    """Whether a path is of a pattern: `*` is any name, `**` any number of them."""
    return _expression(pattern).fullmatch(path) is not None


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    text = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*\*", ".*")
    return re.compile(re.sub(r"(?<!\.)\\\*", "[^/]*", text))
