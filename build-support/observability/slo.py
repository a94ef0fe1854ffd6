"""Service-level objectives and alerts, as deploy/prometheus/slo.toml declares them."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

Severity = Literal["page", "ticket"]
Unit = Literal["number", "ratio", "seconds"]
# What longer windows are summed from.
BASE_WINDOW = "5m"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Objective:
    """A share of good requests that is promised over some days.

    `total` and one of `good` and `bad` select counters.
    """

    name: str
    alert: str
    target: float
    days: int
    what: str
    total: str
    good: str = ""
    bad: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not 0 < self.target < 1:
            raise ValueError(f"objective {self.name}: the target {self.target} is no share")
        if bool(self.good) == bool(self.bad):
            raise ValueError(f"objective {self.name}: give either good or bad")

    @property
    def budget(self) -> float:
        """The share of requests that may be bad."""
        return round(1 - self.target, 9)


@dataclass(frozen=True)
class Burn:
    """An alert when the budget is used `rate` times too fast, over a long and a short window."""

    severity: Severity
    rate: float
    long: str
    short: str
    wait: str


@dataclass(frozen=True)
class Alert:
    """A value that must not be `above`, or `below`, a threshold for the time `wait`."""

    name: str
    severity: Severity
    value: str
    wait: str
    unit: Unit
    summary: str
    description: str
    above: float | None = None
    below: float | None = None
    window: str = ""
    also: str = ""
    labels: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if (self.above is None) == (self.below is None):
            raise ValueError(f"alert {self.name}: give either above or below")
        if ("{window}" in self.value) != bool(self.window):
            raise ValueError(f"alert {self.name}: {{window}} and window belong together")

    @property
    def query(self) -> str:
        """The value's PromQL."""
        return self.value.replace("{window}", self.window)

    @property
    def condition(self) -> str:
        """PromQL that has a sample for each series in alarm."""
        sign, threshold = (">", self.above) if self.below is None else ("<", self.below)
        return f"({self.query}) {sign} {threshold:.9g}{self.also and ' and ' + self.also}"

    @property
    def identity(self) -> str:
        """The name with what tells it from others of that name."""
        return " ".join([self.name, *(value for key, value in self.labels if key == "window")])


@dataclass(frozen=True)
class Declared:
    """All of the file; all times are divided by `speed`, down to a second."""

    runbooks: str
    objectives: tuple[Objective, ...]
    burns: tuple[Burn, ...]
    others: tuple[Alert, ...]
    speed: int = 1

    def time(self, duration: str) -> str:
        """A declared duration as it is applied."""
        if self.speed == 1:
            return duration
        given = seconds(duration)
        return f"{max(1, given // self.speed) if given else 0}s"

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """The burn rates' alerts and all others."""
        burning = [_burning(o, b) for o in self.objectives for b in self.burns]
        return tuple(
            replace(
                alert, wait=self.time(alert.wait), window=alert.window and self.time(alert.window)
            )
            for alert in (*burning, *self.others)
        )

    @property
    def windows(self) -> tuple[str, ...]:
        """The windows of the recorded ratios as declared, shortest first."""
        found = {w for burn in self.burns for w in (burn.long, burn.short)}
        return tuple(sorted(found, key=seconds))


def _burning(objective: Objective, burn: Burn) -> Alert:
    threshold = round(burn.rate * objective.budget, 9)
    return Alert(
        name=objective.alert,
        severity=burn.severity,
        value=ratio(objective, burn.long),
        also=f"{ratio(objective, burn.short)} > {threshold:.9g}",
        above=threshold,
        wait=burn.wait,
        unit="ratio",
        labels=(("slo", objective.name), ("window", burn.long)),
        summary=f"The {objective.name} objective's budget burns {burn.rate:g} times too fast",
        description=(
            f"{objective.what}: {{value}} of those of {burn.long} did not; "
            f"{100 * objective.budget:.9g}% need not over {objective.days} days."
        ),
    )


def ratio(objective: Objective, window: str) -> str:
    """The recorded share of bad requests over a declared window."""
    return f'job:slo_error_ratio:rate{window}{{slo="{objective.name}"}}'


def seconds(duration: str) -> int:
    """A duration such as 5m in seconds.

    Raises:
        ValueError: it is not written so.
    """
    found = re.fullmatch(r"(\d+)([smhd])", duration)
    if found is None:
        raise ValueError(f"{duration!r} is no duration: write 30s, 5m, 6h or 3d")
    return int(found[1]) * _SECONDS[found[2]]


def load(path: Path) -> Declared:
    """Read the file.

    Raises:
        TypeError: a key is missing or unknown.
        ValueError: a value makes no sense.
    """
    content: dict[str, Any] = tomllib.loads(path.read_text())
    declared = Declared(
        runbooks=content["runbooks"],
        objectives=tuple(Objective(**item) for item in content["objective"]),
        burns=tuple(Burn(wait=item.pop("for"), **item) for item in content["burn"]),
        others=tuple(Alert(wait=item.pop("for"), **item) for item in content["alert"]),
    )
    if declared.windows[0] != BASE_WINDOW:
        raise ValueError(f"the shortest burn window is {BASE_WINDOW}, not {declared.windows[0]}")
    identities = [alert.identity for alert in declared.alerts]
    if len(set(identities)) != len(identities):
        raise ValueError("two alerts have one name")
    return declared
