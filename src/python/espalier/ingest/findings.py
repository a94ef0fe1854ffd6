"""What checks found in a batch, as values that know no validation library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from espalier.ingest.checks import Check


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check.

    `expectation` is the library's name of the check, `observed` the number of rows looked at,
    `unexpected` how many break the check. `first` holds the first of those, each as (row, value);
    row 1 is the file's header.
    """

    check: Check
    expectation: str
    success: bool
    observed: int
    unexpected: int = 0
    first: tuple[tuple[int, Any], ...] = ()


@dataclass(frozen=True)
class Validation:
    """The findings of all checks, and the library that made them, with its version."""

    library: str
    findings: tuple[Finding, ...]

    @property
    def success(self) -> bool:
        """Whether no check found a fault."""
        return all(finding.success for finding in self.findings)
