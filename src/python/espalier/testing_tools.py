"""Programs that a few tests need beside Python, such as promtool."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

# CI sets it, so that there a test that cannot run is a failure.
REQUIRED = "ESPALIER_REQUIRE_TOOLS"


def tool(*names: str, required: bool = True) -> Path:
    """The program of that name, or of the first of these names that PATH has.

    Without one the test is skipped with a line that says what is missing; where
    ESPALIER_REQUIRE_TOOLS is set it fails, unless it is not `required`.
    """
    for name in names:
        if found := shutil.which(name):
            return Path(found)
    missing = f"{' or '.join(names)} is not on PATH"
    if required:
        missing += "; build-support/tools/install gets it"
    if required and os.environ.get(REQUIRED):
        pytest.fail(missing)
    pytest.skip(missing)
