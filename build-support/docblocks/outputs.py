"""Whether what a command said is what the page shows."""

from __future__ import annotations

import re

ANYTHING = "..."


def agree(shown: str, said: str) -> bool:
    """Whether the shown lines are those that were said, `...` standing for anything.

    A page breaks long lines where it must, so blanks and line ends are one.
    """
    parts = [re.escape(" ".join(part.split())) for part in shown.split(ANYTHING)]
    # A blank beside the dots is part of what they stand for.
    return re.fullmatch(r".*".join(parts), " ".join(said.split())) is not None
