"""The page of metrics, from the server's registry and the exporter's list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from docs.markup import code, page, table
from espalier.monitoring.exported import METRICS, PREFIX
from espalier.monitoring.exporter import DatabaseCollector
from espalier.serving.metrics import Metrics

_SERVER = """
## The prediction server

`GET /metrics` of the server, of all its workers together.
"""
_BUCKETS = """
### Buckets

Upper bounds of the histograms' buckets, in the unit of the name.
"""
_EXPORTER = """
## The exporter

`espalier.pex exporter` asks PostgreSQL at each scrape. A metric has no series until there is
something to tell.
"""
_OWN = f"""
`{PREFIX}feature_age_seconds{{table}}` comes from each table of the online store: the time since its
newest features happened. These are about the exporter itself, and are told without a database too:
"""
_TITLES = ("metric", "type", "labels", "meaning")
# Nobody listens there: the exporter then tells what is its own.
_NO_DATABASE = "postgresql://nobody@127.0.0.1:1/none"


def rendered() -> str:
    """The page."""
    told = list(_server())
    buckets = [(code(name), ", ".join(bounds)) for name, _, _, _, bounds in told if bounds]
    exported = [
        (code(PREFIX + one.name), _kind(one.name), _labels(one.labels), one.help) for one in METRICS
    ]
    own = [
        (code(family.name), _kind(family.name), "", family.documentation)
        for family in DatabaseCollector(_NO_DATABASE).collect()
    ]
    return page(
        "Metrics",
        "serving/metrics.py, monitoring/exported.py and monitoring/exporter.py",
        "All are in Prometheus' text format. [Dashboards](../dashboards.md) tells what is made of "
        "them.",
        _SERVER,
        table(_TITLES, [(code(n), kind, _labels(ls), text) for n, kind, ls, text, _ in told]),
        _BUCKETS,
        table(("histogram", "bounds"), buckets),
        _EXPORTER,
        table(_TITLES, exported),
        _OWN,
        table(_TITLES, own),
    )


def _server() -> Iterator[tuple[str, str, Sequence[str], str, Sequence[str]]]:
    """Name as scraped, type, labels, meaning and buckets of each of the server's metrics."""
    # A family tells its labels only where it has series, and a fresh server has none.
    collectors: dict[Any, Any] = Metrics().registry._collector_to_names  # noqa: SLF001
    for collector in collectors:
        for family in collector.describe():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            bounds = [f"{bound:g}" for bound in collector._kwargs.get("buckets", ())]  # noqa: SLF001
            yield name, family.type, collector._labelnames, family.documentation, bounds  # noqa: SLF001


def _kind(name: str) -> str:
    return "counter" if name.endswith("_total") else "gauge"


def _labels(names: Sequence[str]) -> str:
    return ", ".join(map(code, names))
