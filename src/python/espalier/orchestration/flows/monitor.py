"""The monitor flow: is the model still looking at the world that it was trained on, and how well?"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect import flow

from espalier.monitoring import consistency, drift, live
from espalier.orchestration import context, steps
from espalier.orchestration.artifact import publish, version_page
from espalier.registry.download import fetch_version
from espalier.registry.manifest import CHAMPION


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
        found = drift.check_drift(
            product,
            as_of=as_of,
            dsn=configured.dsn,
            reports_dir=configured.reports_dir,
            model_version=champion.version,
            trained_as_of=date.fromisoformat(champion.manifest.provenance["as_of"]),
        )
        performance = live.measure(product, as_of=as_of, dsn=configured.dsn)
        compared = consistency.check(product, as_of=as_of, dsn=configured.dsn)
        return publish(
            "monitor",
            {
                "drift": found.verdict,
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
                "live": [_told(one) for one in performance.performances],
                "shadow less champion": [_difference(one) for one in performance.comparisons],
                "online unlike offline": f"{compared.mismatched} of {compared.rows} predictions",
                "html": str(found.html),
                "json": str(found.json),
            },
            passed=not found.verdict,
            links={
                "report": found.html.absolute().as_uri(),
                "model": version_page(
                    configured.mlflow_tracking_uri, product.name, champion.version
                ),
            },
        )


def _told(one: live.Performance) -> str:
    auc = one.metrics["roc_auc"]
    return (
        f"{one.label_time} {one.role} {one.model_version}: ROC-AUC {auc.value:.3f} "
        f"({auc.interval.low:.3f} to {auc.interval.high:.3f}) of {one.rows} answers"
    )


def _difference(one: live.ShadowComparison) -> str:
    auc = one.differences["roc_auc"]
    return (
        f"{one.label_time} {one.shadow} less {one.champion}: ROC-AUC {auc.value:+.3f} "
        f"({auc.interval.low:+.3f} to {auc.interval.high:+.3f}) on {one.rows} rows"
    )
