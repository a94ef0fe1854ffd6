"""The same alerts as Grafana's own rules, so that its alert pages and dashboards show them."""

from __future__ import annotations

from typing import Any

from observability.prometheus_rules import EVALUATION, texts
from observability.slo import Alert, Declared

DATASOURCE = "espalier-prometheus"


def provisioning(declared: Declared) -> dict[str, Any]:
    """The content of a file in Grafana's provisioning/alerting."""
    return {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": "alerts",
                "folder": "Espalier",
                "interval": declared.time(EVALUATION),
                "rules": [_rule(declared, alert) for alert in declared.alerts],
            }
        ],
    }


def _rule(declared: Declared, alert: Alert) -> dict[str, Any]:
    kind, threshold = ("gt", alert.above) if alert.below is None else ("lt", alert.below)
    query = f"({alert.query}) and {alert.also}" if alert.also else alert.query
    return {
        "uid": alert.identity.lower().replace(" ", "-"),
        "title": alert.identity,
        "condition": "B",
        "for": alert.wait,
        # Most of these values are there only when something is wrong.
        "noDataState": "OK",
        "execErrState": "Error",
        "labels": {"severity": alert.severity, **dict(alert.labels)},
        "annotations": texts(declared, alert, ".Values.A.Value"),
        "data": [
            {
                "refId": "A",
                "datasourceUid": DATASOURCE,
                "relativeTimeRange": {"from": 600, "to": 0},
                "model": {"refId": "A", "expr": query, "instant": True, "range": False},
            },
            {
                "refId": "B",
                "datasourceUid": "__expr__",
                "relativeTimeRange": {"from": 0, "to": 0},
                "model": {
                    "refId": "B",
                    "type": "threshold",
                    "expression": "A",
                    "conditions": [{"evaluator": {"type": kind, "params": [threshold]}}],
                },
            },
        ],
    }
