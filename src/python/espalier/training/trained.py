"""What a training gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from espalier.training.gate import Check


@dataclass(frozen=True)
class Trained:
    """One training run's result. `rows` were trained on; metrics are of the validation rows.

    `format` is the served file's name, `checks` are all that the gate made.
    """

    version: str
    run_id: str
    metrics: Mapping[str, float]
    baseline: Mapping[str, float]
    validation_time: date
    promoted: bool
    reason: str
    rows: int
    format: str = ""
    checks: tuple[Check, ...] = ()
