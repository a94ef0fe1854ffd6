"""Builds the documentation site, or serves it while it is written.

    ./pants run build-support/docs/build_site.py                      # to dist/site
    ./pants run build-support/docs/build_site.py -- serve             # on http://127.0.0.1:8001

A warning, as of a link that leads nowhere, is an error. The site is plain files: open
dist/site/index.html, or put the folder on any web server.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Material would tell of the future of MkDocs at each start.
os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")


def build(root: Path, site: Path) -> None:
    """Build the site of the repository `root` into the folder `site`.

    Raises:
        mkdocs.exceptions.Abort: there was a warning; it was logged.
    """
    from mkdocs.commands.build import build as build_site
    from mkdocs.config import load_config

    configuration = load_config(str(root / "mkdocs.yml"), site_dir=str(site))
    configuration.plugins.on_startup(command="build", dirty=False)
    build_site(configuration)
    configuration.plugins.on_shutdown()


def main(arguments: Sequence[str]) -> int:
    """Build or serve; give the exit code."""
    parser = argparse.ArgumentParser("site", description="The documentation site.")
    parser.add_argument("command", nargs="?", choices=("build", "serve"), default="build")
    parser.add_argument("--address", default="127.0.0.1:8001", help="default: %(default)s")
    asked = parser.parse_args(arguments)
    root = Path.cwd()
    if not (root / "mkdocs.yml").is_file():
        print("site: no mkdocs.yml here; run at the repository's root", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(levelname)-8s %(message)s")
    if asked.command == "serve":
        from mkdocs.commands.serve import serve

        serve(str(root / "mkdocs.yml"), dev_addr=asked.address)
        return 0
    from mkdocs.exceptions import Abort

    try:
        build(root, root / "dist" / "site")
    except Abort:
        return 1
    print("site: dist/site/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
