"""Checks of what watches: exporter, Prometheus, Grafana."""

from __future__ import annotations

from typing import Any

from espalier.cli.doctor import http
from espalier.cli.doctor.finding import Finding, Subject, fail, note, ok, warn
from espalier.errors import DependencyUnreachable

_UP = "espalier_exporter_up "
# The jobs of deploy/prometheus/prometheus.yml that are ours.
_JOBS = ("espalier-server", "espalier-exporter")


def exporter(subject: Subject) -> Finding:
    """The exporter answers, and reaches the database."""
    at = http.local(subject.settings.exporter_address)
    answer = http.get(
        f"http://{at}/metrics",
        "the exporter",
        "start it: espalier.pex exporter; or set ESPALIER_EXPORTER_ADDRESS",
    )
    up = [line for line in answer.text.splitlines() if line.startswith(_UP)]
    if not up:
        return fail(
            f"what answers at {at} is not the exporter", "end it, or choose another address"
        )
    if float(up[0].removeprefix(_UP)) != 1:
        return fail(
            f"the exporter at {at} does not reach the database",
            "compare its POSTGRES_ variables with these, and restart it",
        )
    return ok(f"at {at}, and it reaches the database")


def prometheus(subject: Subject) -> Finding:
    """Prometheus answers, its rules can be evaluated, and every target is up."""
    url = subject.settings.prometheus_url.rstrip("/")
    fix = "start it, or set ESPALIER_PROMETHEUS_URL to where it is"
    targets = _asked(f"{url}/api/v1/targets?state=active", fix).get("activeTargets", [])
    down = [target for target in targets if target.get("health") == "down"]
    if down:
        first = down[0]
        return fail(
            f"{len(down)} of {len(targets)} targets are down: {_job(first)} at "
            f"{http.shown(str(first.get('scrapeUrl', '')))}: {first.get('lastError', '')}"[:300],
            "start what is down, or correct its address in the targets' file",
        )
    jobs = {_job(target) for target in targets}
    if missing := [job for job in _JOBS if job not in jobs]:
        return fail(
            f"Prometheus has no target of {', '.join(missing)}",
            "add it to the targets' file, as deploy/prometheus/targets.example.json shows",
        )
    groups = _asked(f"{url}/api/v1/rules", fix).get("groups", [])
    rules = [rule for group in groups for rule in group.get("rules", [])]
    if wrong := [rule for rule in rules if rule.get("health") == "err"]:
        return fail(
            f"rule {wrong[0].get('name')} fails: {wrong[0].get('lastError', '')}"[:300],
            "correct it and reload Prometheus; promtool check rules tells more",
        )
    waiting = [target for target in targets if target.get("health") != "up"]
    if waiting:
        return warn(
            f"{len(waiting)} of {len(targets)} targets were not scraped yet", "ask again in 10 s"
        )
    return ok(f"all {len(targets)} targets are up, {len(rules)} rules")


def _asked(url: str, fix: str) -> dict[str, Any]:
    said = http.json_of(http.get(url, "Prometheus", fix))
    data = said.get("data")
    if said.get("status") != "success" or not isinstance(data, dict):
        raise DependencyUnreachable(f"what answers at {http.shown(url)} is not Prometheus", fix=fix)
    return data


def _job(target: dict[str, Any]) -> str:
    return str(target.get("labels", {}).get("job", ""))


def grafana(subject: Subject) -> Finding:
    """Grafana answers; it is optional."""
    url = subject.settings.grafana_url.rstrip("/")
    try:
        said = http.json_of(http.get(f"{url}/api/health", "Grafana", "", accept=(503,)))
    except DependencyUnreachable as error:
        return note(error.message, "it is optional: start it, or set ESPALIER_GRAFANA_URL")
    if said.get("database") != "ok":
        return fail("Grafana answers, and its own database does not", "see its log")
    return ok(f"Grafana {said.get('version', '')} at {http.shown(url)}")
