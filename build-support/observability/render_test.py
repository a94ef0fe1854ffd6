"""What is committed is what the code makes, and it is whole."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.alerting import Query
from grafana_foundation_sdk.models.dashboard import Dashboard

from observability import render, slo
from observability.grafana_rules import DATASOURCE

DECLARED = slo.load(render.SLO)
RENDERED = render.rendered(DECLARED)
BOARDS = {path.stem: json.loads(text) for path, text in RENDERED.items() if path.suffix == ".json"}
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and name[0] != "_"}


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("path", list(RENDERED), ids=str)
def test_it_is_current(path):
    told = f"{path} is old: ./pants run build-support/observability/render.py"
    assert path.read_text() == RENDERED[path], told


def test_nothing_else_is_committed_beside_it():
    assert set(Path("deploy/grafana/dashboards").iterdir()) == {
        path for path in RENDERED if path.suffix == ".json"
    }
    assert len(BOARDS) == 5


def test_every_alert_says_what_where_and_what_to_do():
    alerts = yaml.safe_load(RENDERED[Path("deploy/prometheus/rules/espalier.yml")])["groups"][2]
    assert len(alerts["rules"]) == len(DECLARED.alerts)
    for rule in alerts["rules"]:
        assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]
        assert rule["annotations"]["summary"]
        assert "{{ .Value | " in rule["annotations"]["description"], rule["alert"]
        # A label that no text may name.
        assert "$" not in "".join(rule["annotations"].values())


def test_every_alert_has_its_section_and_every_section_its_alert():
    """GitHub's anchor of a heading of one word is the word in lower case."""
    page = Path(DECLARED.runbooks)
    headings = re.findall(r"^### (\w+)$", page.read_text(), re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert set(headings) == {alert.name for alert in DECLARED.alerts}
    linked = re.findall(r"runbook_url: \S+#(\S+)", "".join(RENDERED.values()))
    assert {name.lower() for name in headings} == set(linked)


def test_grafana_has_the_same_alerts():
    groups = yaml.safe_load(RENDERED[Path("deploy/grafana/provisioning/alerting/rules.yml")])
    rules = groups["groups"][0]["rules"]
    assert [rule["title"] for rule in rules] == [alert.identity for alert in DECLARED.alerts]
    uids = [rule["uid"] for rule in rules]
    assert len(set(uids)) == len(uids)
    for rule, alert in zip(rules, DECLARED.alerts, strict=True):
        # As long as Grafana lets them be.
        assert re.fullmatch(r"[a-z0-9-]{1,40}", rule["uid"])
        query, threshold = rule["data"]
        assert alert.query in query["model"]["expr"]
        assert query["datasourceUid"] == DATASOURCE
        assert threshold["refId"] == rule["condition"]
        limit = alert.above if alert.below is None else alert.below
        assert threshold["model"]["conditions"][0]["evaluator"]["params"] == [limit]
        # Here a dollar would be a variable of the environment.
        assert "$" not in json.dumps([rule["annotations"], rule["labels"], rule["title"]])
        for part in rule["data"]:
            again = json.loads(json.dumps(Query.from_json(part), cls=JSONEncoder))
            assert again == part


def test_what_is_provisioned_fits_together():
    folder = Path("deploy/grafana/provisioning")
    sources = yaml.safe_load((folder / "datasources/espalier.yml").read_text())["datasources"]
    by_uid = {source["uid"]: source for source in sources}
    assert by_uid[DATASOURCE]["jsonData"]["alertmanagerUid"] in by_uid
    told = yaml.safe_load((folder / "alerting/notifications.yml").read_text())
    names = {point["name"] for point in told["contactPoints"]}
    (policy,) = told["policies"]
    assert {policy["receiver"], *(route["receiver"] for route in policy["routes"])} == names
    mutes = {mute for route in policy["routes"] for mute in route["mute_time_intervals"]}
    assert mutes == {mute["name"] for mute in told["muteTimes"]}


@pytest.mark.parametrize("uid", list(BOARDS))
def test_a_dashboard_is_what_the_sdk_reads(uid):
    register_default_plugins()
    given = BOARDS[uid]
    for mark in given["annotations"]["list"]:
        # Prometheus' own, which the SDK's model does not have.
        for name in ("titleFormat", "textFormat", "step"):
            mark.pop(name, None)
    again = json.loads(json.dumps(Dashboard.from_json(given), cls=JSONEncoder))
    assert again == given


@pytest.mark.parametrize("uid", list(BOARDS))
def test_a_dashboard_is_whole(uid):
    board = BOARDS[uid]
    assert board["uid"] == uid
    assert board["schemaVersion"] == 41
    assert board["title"]
    assert board["description"]
    source, *others = board["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    assert source["current"]["value"] == DATASOURCE
    known = {"datasource", "__rate_interval", *(variable["name"] for variable in others)}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(board["panels"]))) <= known
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("uid", list(BOARDS))
def test_every_panel_says_what_it_shows_and_in_which_unit(uid):
    assert len(panels(BOARDS[uid])) >= 6
    for panel in panels(BOARDS[uid]):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters))
        legends = [target.get("legendFormat", "") for target in panel["targets"]]
        assert len(set(legends)) == len(legends), panel["title"]


@pytest.mark.parametrize("uid", list(BOARDS))
def test_panels_lie_beside_each_other(uid):
    def cells(panel):
        place = panel["gridPos"]
        return {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }

    for one, other in combinations(BOARDS[uid]["panels"], 2):
        assert not cells(one) & cells(other), (one["title"], other["title"])
        assert max(x for x, _ in cells(one)) < 24
