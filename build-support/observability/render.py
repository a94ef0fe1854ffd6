"""Writes what is made from slo.toml and from the dashboards' code.

    ./pants run build-support/observability/render.py

The files are committed, and a test fails while they are old.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

import committed
from observability import dashboards, dashboards_serving, grafana_rules, prometheus_rules, slo

SLO = Path("deploy/prometheus/slo.toml")
_HEADER = "# Made from deploy/prometheus/slo.toml by build-support/observability/render.py.\n"
# By Prometheus' own names, which Grafana's foundation SDK does not know.
_MARKS = {
    "Alerts": {"titleFormat": "{{alertname}}", "textFormat": "{{severity}}", "step": "60s"},
    "Model versions": {"titleFormat": "{{name}} version {{version}}", "step": "60s"},
    "Promotions": {"titleFormat": "{{project}} version {{version}} is champion", "step": "60s"},
}


class _Plain(yaml.SafeDumper):
    """YAML without anchors, which are hard to read."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal values again."""
        del data
        return True


def rendered(declared: slo.Declared) -> dict[Path, str]:
    """Every file's content by its path in the repository."""
    rules = prometheus_rules.rules(declared)
    boards = [
        dashboards_serving.serving(declared),
        dashboards.data(),
        dashboards.drift(),
        dashboards.flows(),
        dashboards_serving.objectives(declared),
    ]
    grafana = Path("deploy/grafana")
    return {
        Path("deploy/prometheus/rules/espalier.yml"): as_yaml(rules),
        grafana / "provisioning/alerting/rules.yml": as_yaml(grafana_rules.provisioning(declared)),
        **{grafana / f"dashboards/{board.uid}.json": as_json(board) for board in boards},
    }


def as_yaml(content: Mapping[str, Any]) -> str:
    """Readable YAML, with a line that says what it is made from."""
    return _HEADER + yaml.dump(content, Dumper=_Plain, sort_keys=False, width=100)


def as_json(board: Dashboard) -> str:
    """A dashboard as Grafana reads it."""
    content: dict[str, Any] = json.loads(json.dumps(board, cls=JSONEncoder))
    for annotation in content["annotations"]["list"]:
        annotation.update(_MARKS[annotation["name"]])
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def main(root: Path) -> int:
    """Write the files under `root`, the repository."""
    return committed.renew(root, rendered(slo.load(root / SLO)))


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
