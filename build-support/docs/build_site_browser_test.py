"""The search in a real browser, of pages that are files: there are no servers and no workers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from docs import build_site


def chromium():
    """As espalier.testing_tools, which is of another resolve."""
    if found := shutil.which("chromium"):
        return found
    missing = "chromium is not on PATH; build-support/tools/install --browser gets it"
    if os.environ.get("ESPALIER_REQUIRE_TOOLS"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.mark.parametrize(
    ("asked", "page"),
    [("quarantine", "data.html"), ("prédiction", "fr/nouveau-produit.html")],
)
def test_the_search_answers(tmp_path, asked, page):
    program = chromium()
    build_site.build(Path.cwd(), tmp_path / "site")
    command = [
        *(program, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
        # The page's own time, which stands still while it waits for files.
        "--virtual-time-budget=20000",
        f"--user-data-dir={tmp_path / 'browser'}",
        f"{(tmp_path / 'site/index.html').as_uri()}?q={asked}",
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        # As in a container that has no home for it.
        env={**os.environ, "HOME": str(tmp_path)},
    )
    found = re.findall(
        r'class="md-search-result__link"[^>]*href="([^"#?]+)|href="([^"#?]+)\?h=', done.stdout
    )
    assert page in {
        Path(url).as_posix().rpartition("/site/")[2] for pair in found for url in pair
    }, done.stderr
