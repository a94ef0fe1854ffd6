"""Puts together what answers for one product: its own parts over those that all share."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.contract import ColumnType
from espalier.project import Project
from espalier.serving.core import Predictor
from espalier.serving.decision import Policy
from espalier.serving.log import PredictionLog
from espalier.serving.model_metrics import ModelMetrics
from espalier.serving.models import ModelKeeper
from espalier.serving.options import Options
from espalier.serving.reader import FeatureReader
from espalier.serving.readiness import Readiness
from espalier.serving.routing import Product
from espalier.serving.scoring import RowScorer
from espalier.serving.shadow import ShadowScorer

if TYPE_CHECKING:
    # OpenTelemetry is loaded only where its collector is.
    from espalier.serving.tracing import Tracing


@dataclass(frozen=True)
class Running:
    """A product with what keeps it current."""

    product: Product
    keeper: ModelKeeper
    shadow: ShadowScorer | None

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What runs as long as the server does."""
        return [self.keeper.run(), *([] if self.shadow is None else [self.shadow.run()])]


def assemble(
    project: Project,
    options: Options,
    *,
    reader: FeatureReader,
    log: PredictionLog | None,
    tracing: Tracing | None,
    metrics: ModelMetrics,
    into: Path,
) -> Running:
    """The parts of one product; nothing of it runs yet.

    Args:
        project: What it declares.
        options: How the server runs.
        reader: Where features come from.
        log: The prediction log; None for none, and then nothing is scored in the shadow either.
        tracing: Learns what is predicted; None for none.
        metrics: The model's own.
        into: The folder that versions are downloaded to.
    """
    shadow = None if log is None else ShadowScorer(reader, log, observer=metrics)
    predictor = Predictor(
        reader,
        name=project.name,
        observer=metrics,
        sink=log if tracing is None else tracing.sink(log),
        shadow=shadow,
        policy=_policy(project),
        clock=options.now,
        workers=options.workers,
        max_waiting=options.max_waiting,
        max_entities=options.max_entities,
        integer_keys=project.key_type is ColumnType.INTEGER,
    )
    metrics.watch_queue(lambda: predictor.waiting)
    keeper = ModelKeeper(
        predictor,
        tracking_uri=options.tracking_uri,
        into=into,
        poll_seconds=options.poll_seconds,
        shadow=shadow,
        observer=metrics,
        on_change=lambda: readiness.check_soon(),  # noqa: PLW0108  # it is made below
    )
    readiness = Readiness(predictor, model_problem=lambda: keeper.problem)
    scorer = RowScorer(predictor.describe, max_rows=options.max_entities, observer=metrics)
    return Running(Product(project, predictor, scorer, readiness), keeper, shadow)


def _policy(project: Project) -> Policy:
    columns = project.table(project.view.table).columns
    required = frozenset(column.name for column in columns if not column.nullable)
    return Policy(project.serving, required)
