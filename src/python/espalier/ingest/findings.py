"""What checks found in a batch, as values that know no validation library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from espalier.ingest.checks import Check, Kind


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check.

    `expectation` is the library's name of the check, `observed` the number of rows looked at,
    `unexpected` how many break the check. `first` holds the first of those, each as (row, value);
    row 1 is the file's header. `value` is what was found instead by a failed check of a table as a
    whole, where that is one value.
    """

    check: Check
    expectation: str
    success: bool
    observed: int
    unexpected: int = 0
    first: tuple[tuple[int, Any], ...] = ()
    value: Any = None

    @property
    def says(self) -> str:
        """What a failed check of a table as a whole says of it."""
        found = self.check.kind is not Kind.ROWS and self.value is not None
        return f"{self.check.says}: {_short(self.value)}" if found else self.check.says


@dataclass(frozen=True)
class Validation:
    """The findings of all checks, and the library that made them, with its version.

    `results` is the library's own account of each table, of plain JSON values.
    """

    library: str
    findings: tuple[Finding, ...]
    results: Mapping[str, Any] = field(default_factory=dict)

    @property
    def success(self) -> bool:
        """Whether no check found a fault."""
        return all(finding.success for finding in self.findings)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
