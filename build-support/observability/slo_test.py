from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from observability import prometheus_rules, slo

DECLARED = slo.load(Path("deploy/prometheus/slo.toml"))


def alert(**changes):
    given: dict[str, Any] = {
        "name": "A",
        "severity": "page",
        "value": "up",
        "wait": "1m",
        "unit": "number",
        "summary": "s",
        "description": "d",
        "above": 0.0,
    }
    return slo.Alert(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"above": None}, "either above or below"),
        ({"below": 1.0}, "either above or below"),
        ({"value": "rate(x[{window}])"}, "belong together"),
        ({"window": "5m"}, "belong together"),
    ],
)
def test_an_alert_that_cannot_be_meant_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        alert(**changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"target": 99.9}, "is no share"),
        ({"good": "x"}, "either good or bad"),
        ({"bad": ""}, "either good or bad"),
    ],
)
def test_an_objective_that_cannot_be_meant_is_refused(changes, told):
    given: dict[str, Any] = {
        "name": "o",
        "alert": "A",
        "target": 0.999,
        "days": 30,
        "what": "w",
        "total": "t",
        "bad": "b",
    }
    with pytest.raises(ValueError, match=told):
        slo.Objective(**(given | changes))


@pytest.mark.parametrize("duration", ["5", "1.5h", "2 m", "1w"])
def test_a_duration_is_a_number_and_a_unit(duration):
    with pytest.raises(ValueError, match="write 30s"):
        slo.seconds(duration)


def test_two_alerts_of_one_name_are_refused(tmp_path):
    text = Path("deploy/prometheus/slo.toml").read_text()
    first = text.index("[[alert]]")
    (tmp_path / "slo.toml").write_text(text + text[first : text.index("[[alert]]", first + 1)])
    with pytest.raises(ValueError, match="one name"):
        slo.load(tmp_path / "slo.toml")


def test_speed_divides_times_and_leaves_thresholds_and_names():
    fast = replace(DECLARED, speed=60)
    slow, quick = (
        {(rule.get("alert"), str(rule.get("labels"))): rule for rule in group["rules"]}
        for group in (prometheus_rules.rules(d)["groups"][2] for d in (DECLARED, fast))
    )
    assert list(slow) == list(quick)
    stale = next(rule for rule in quick.values() if rule["alert"] == "EspalierStaleFeatures")
    assert "[10s]" in stale["expr"]
    assert stale["expr"].endswith("> 0.05")
    assert stale["for"] == "5s"
    recorded = [rule["record"] for rule in prometheus_rules.rules(fast)["groups"][0]["rules"]]
    assert "job:slo_error_ratio:rate3d" in recorded


def test_a_budget_is_burned_at_the_rates_of_the_workbook():
    """Of 30 days: 2 % in 1 h, 5 % in 6 h, 10 % in a day, 10 % in 3 days."""
    used = [b.rate * slo.seconds(b.long) / (30 * 86_400) for b in DECLARED.burns]
    assert used == pytest.approx([0.02, 0.05, 0.1, 0.1])
    for burn in DECLARED.burns:
        assert slo.seconds(burn.long) / slo.seconds(burn.short) == 12
