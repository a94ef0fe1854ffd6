"""Great Expectations' own pages of a validation, its Data Docs, from the results that we keep.

A page holds everything it says, but asks other hosts (CDNs of Bootstrap, jQuery and Font Awesome,
Great Expectations' own) for how it looks. Without a network it is readable and plain; our own page
needs no other file and links here. Importing this module takes seconds, as for the adapter.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

from great_expectations.core.expectation_validation_result import (
    ExpectationSuiteValidationResultSchema,
)
from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
from great_expectations.render.view.view import DefaultJinjaPageView


def page(result: Mapping[str, Any]) -> str:
    """One table's Data Docs page, as HTML.

    Args:
        result: The JSON values that `great_expectations_adapter.validate` gives for a table.
    """
    # It takes some of what it is given away.
    loaded = ExpectationSuiteValidationResultSchema().load(copy.deepcopy(dict(result)))
    document = ValidationResultsPageRenderer().render(loaded)
    return str(_view().render(document))


@functools.cache
def _view() -> Any:
    """One for the process: it compiles fifty templates, a tenth of a second."""
    return DefaultJinjaPageView()
