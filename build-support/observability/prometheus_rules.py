"""Prometheus' recording and alert rules of the declared objectives."""

from __future__ import annotations

import re
from typing import Any

from observability.slo import BASE_WINDOW, Alert, Declared, Objective, Unit

EVALUATION = "30s"
_FORMATS: dict[Unit, str] = {
    "number": "humanize",
    "ratio": "humanizePercentage",
    "seconds": "humanizeDuration",
}


def rules(declared: Declared) -> dict[str, Any]:
    """The content of a rule file."""
    recorded = [rule for o in declared.objectives for rule in _recorded(declared, o)]
    return {
        "groups": [
            {"name": "slo", "interval": declared.time(EVALUATION), "rules": recorded},
            {
                "name": "slo-budget",
                # Thirty days are read anew each time.
                "interval": declared.time("5m"),
                "rules": [_budget(declared, o) for o in declared.objectives],
            },
            {
                "name": "alerts",
                "interval": declared.time(EVALUATION),
                "rules": [_alert(declared, alert) for alert in declared.alerts],
            },
        ]
    }


def _recorded(declared: Declared, objective: Objective) -> list[dict[str, Any]]:
    """Bad and all requests a second, and the share of bad ones over each window.

    Long windows are summed from what was recorded, since reading three days of every series every
    half minute would be most of Prometheus' work.
    """
    base = declared.time(BASE_WINDOW)
    total = f"sum by (job, project) (rate({objective.total}[{base}]))"
    if objective.bad:
        # No series before the first error.
        bad = f"sum by (job, project) (rate({objective.bad}[{base}])) or 0 * {total}"
    else:
        bad = f"{total} - sum by (job, project) (rate({objective.good}[{base}]))"
    own = {"slo": objective.name}
    these = f'{{slo="{objective.name}"}}'
    made: list[dict[str, Any]] = [
        {
            "record": "job:slo_target:ratio",
            "expr": f"vector({objective.target:.9g})",
            "labels": own,
        },
        {"record": "job:slo_requests:rate5m", "expr": total, "labels": own},
        {"record": "job:slo_bad:rate5m", "expr": bad, "labels": own},
    ]
    for window in declared.windows:
        expr = f"job:slo_bad:rate5m{these} / (job:slo_requests:rate5m{these} > 0)"
        if window != BASE_WINDOW:
            expr = _ratio_over(objective, declared.time(window))
        made.append(
            {"record": f"job:slo_error_ratio:rate{window}", "expr": expr, "labels": own},
        )
    return made


def _ratio_over(objective: Objective, window: str) -> str:
    bad, requests = (
        f'sum_over_time(job:{name}:rate5m{{slo="{objective.name}"}}[{window}])'
        for name in ("slo_bad", "slo_requests")
    )
    return f"{bad} / ({requests} > 0)"


def _budget(declared: Declared, objective: Objective) -> dict[str, Any]:
    window = declared.time(f"{objective.days}d")
    used = f"({_ratio_over(objective, window)}) / {objective.budget:.9g}"
    return {
        "record": "job:slo_budget_left:ratio",
        "expr": f"1 - {used}",
        "labels": {"slo": objective.name},
    }


def _alert(declared: Declared, alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.condition,
        "for": alert.wait,
        "labels": {"severity": alert.severity, **dict(alert.labels)},
        "annotations": texts(declared, alert, ".Value"),
    }


def texts(declared: Declared, alert: Alert, value: str) -> dict[str, str]:
    """An alert's texts as Go templates; `value` is the field that has its value.

    `.Labels` is written and not `$labels`: Grafana's provisioning would take that for a variable of
    the environment.
    """
    filled = f"{{{{ {value} | {_FORMATS[alert.unit]} }}}}"

    def field(found: re.Match[str]) -> str:
        return filled if found[1] == "value" else f"{{{{ .Labels.{found[1]} }}}}"

    return {
        "summary": re.sub(r"\{(\w+)\}", field, alert.summary),
        "description": re.sub(r"\{(\w+)\}", field, alert.description),
        "runbook_url": f"{declared.runbooks}#{alert.name.lower()}",
    }
