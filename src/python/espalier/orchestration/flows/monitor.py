"""The monitor flow: is the model still looking at the world that it was trained on, and how well?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect import flow

from espalier.errors import TooFewRows
from espalier.monitoring import consistency, drift, live
from espalier.monitoring.performance import Measured, Performance, ShadowComparison
from espalier.orchestration import context, steps
from espalier.orchestration.artifact import publish, version_page
from espalier.project import Project
from espalier.registry.download import FetchedModel, fetch_version
from espalier.registry.manifest import CHAMPION
from espalier.settings import Settings
from espalier.training.evaluate import title


@flow(name="monitor")
def monitor(project: str, as_of: date) -> dict[str, Any]:
    """Look at a day's drift, at what was served against its labels, and online against offline.

    Args:
        project: The ML product.
        as_of: The day whose features are looked at.
    """
    return steps.run("monitor", lambda: _monitor(project, as_of))


def _monitor(project: str, as_of: date) -> dict[str, Any]:
    with context.begin(project, flow="monitor") as begun:
        configured, product = begun.settings, begun.project
        with TemporaryDirectory() as scratch:
            champion = fetch_version(
                configured.mlflow_tracking_uri, product.name, CHAMPION, Path(scratch)
            )
        drifted, page = _drift(product, configured, champion, as_of)
        performance = live.measure(product, as_of=as_of, dsn=configured.dsn)
        compared = consistency.check(product, as_of=as_of, dsn=configured.dsn)
        return publish(
            "monitor",
            {
                **drifted,
                "live": [_told(one, product) for one in performance.performances]
                or f"nothing to compare: {performance.nothing}",
                "shadow less champion": [
                    _difference(one, product) for one in performance.comparisons
                ],
                "online unlike offline": f"{compared.mismatched} of {compared.rows} predictions",
            },
            passed=not drifted["drift"],
            links={
                **({"report": page.absolute().as_uri()} if page else {}),
                "model": version_page(
                    configured.mlflow_tracking_uri, product.name, champion.version
                ),
            },
        )


def _drift(
    product: Project, configured: Settings, champion: FetchedModel, as_of: date
) -> tuple[dict[str, Any], Path | None]:
    """What the check says, and its page; too few rows are no failure, and said."""
    try:
        found = drift.check_drift(
            product,
            as_of=as_of,
            dsn=configured.dsn,
            reports_dir=configured.reports_dir,
            model_version=champion.version,
            trained_as_of=date.fromisoformat(champion.manifest.provenance["as_of"]),
        )
    except TooFewRows as error:
        return {"drift": None, "nothing to compare": str(error)}, None
    return {
        "drift": None if found.nothing else found.verdict,
        **({"nothing to compare": found.nothing} if found.nothing else {}),
        "drifted today": found.window,
        "windows": f"{sum(w.drifted for w in found.windows)} of {len(found.windows)} "
        f"drifted, {product.monitoring.windows_k} are needed",
        "share": found.share,
        "drifted": list(found.drifted),
        "trends that moved": list(found.trending),
        "target drift": found.target.drifted if found.target else None,
        "served otherwise": None
        if found.served is None
        else [name for name, column in found.served.items() if column.drifted],
        "quality failed": list(found.failed_quality),
        "html": str(found.html),
        "json": str(found.json),
    }, found.html


def _told(one: Performance, product: Project) -> str:
    name = _main(product, one.metrics)
    found = one.metrics[name]
    return (
        f"{one.label_time} {one.role} {one.model_version}: {title(name)} {found.value:.3f} "
        f"({found.interval.low:.3f} to {found.interval.high:.3f}) of {one.rows} answers"
    )


def _difference(one: ShadowComparison, product: Project) -> str:
    name = _main(product, one.differences)
    found = one.differences[name]
    return (
        f"{one.label_time} {one.shadow} less {one.champion}: {title(name)} {found.value:+.3f} "
        f"({found.interval.low:+.3f} to {found.interval.high:+.3f}) on {one.rows} rows"
    )


def _main(product: Project, measured: Mapping[str, Measured]) -> str:
    """The gate's metric, or the first that could be measured."""
    return product.gate.metric if product.gate.metric in measured else next(iter(measured))
