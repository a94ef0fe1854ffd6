"""Writes the reference pages, which are made from the code that they describe.

    ./pants run build-support/docs/reference.py

The pages are committed, and a test fails while they are old.
"""

from __future__ import annotations

import sys
from pathlib import Path

import committed
from docs import commands_page, contract_page, errors_page, metrics_page, settings_page

FOLDER = Path("docs/reference")


def rendered(root: Path) -> dict[Path, str]:
    """Every page by its path in the repository `root`."""
    return {
        FOLDER / "commands.md": commands_page.rendered(),
        FOLDER / "contract.md": contract_page.rendered(root / "protos"),
        FOLDER / "errors.md": errors_page.rendered(),
        FOLDER / "metrics.md": metrics_page.rendered(),
        FOLDER / "settings.md": settings_page.rendered(),
    }


def main(root: Path) -> int:
    """Write the pages under `root`, the repository."""
    return committed.renew(root, rendered(root))


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
