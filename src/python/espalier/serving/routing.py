"""The products of one server, and which of them a request is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from espalier.errors import InvalidRequest, ModelUnknown
from espalier.project import Project
from espalier.serving.core import MAX_ENTITY_ID, Predictor
from espalier.serving.loading import LoadedModel
from espalier.serving.prediction import Prediction
from espalier.serving.readiness import Readiness
from espalier.serving.scoring import RowScorer, Scored


@dataclass(frozen=True)
class Product:
    """One product that is served: its declaration, and what answers for its model."""

    project: Project
    predictor: Predictor
    scorer: RowScorer
    readiness: Readiness

    @property
    def name(self) -> str:
        """The project's name, which is its model's too."""
        return self.project.name


class Predicts(Protocol):
    """Answers requests that name a model; `Predictor` does for its own one."""

    def describe(self, model: str = "") -> LoadedModel:
        """See `Predictor.describe`."""

    async def predict(
        self, entity_ids: Sequence[str], *, model: str = "", deadline: float | None = None
    ) -> list[Prediction]:
        """See `Predictor.predict`."""

    async def predict_one(
        self, entity_id: str, *, model: str = "", deadline: float | None = None
    ) -> Prediction:
        """See `Predictor.predict_one`."""

    async def explain(
        self, entity_id: str, *, model: str = ""
    ) -> tuple[Prediction, dict[str, float | None]]:
        """See `Predictor.explain`."""


class Scores(Protocol):
    """Scores rows for a model that is named; `RowScorer` does for its own one."""

    async def score(
        self, matrix: NDArray[np.float64], *, model: str, deadline: float | None
    ) -> Scored:
        """See `RowScorer.score`."""


class Router:
    """Gives each request to the product that it names.

    Raises, where the methods of one product do: InvalidRequest without a name, and ModelUnknown
    with a name of none.
    """

    def __init__(self, products: Sequence[Product]) -> None:
        """Route among `products`."""
        self._products = {product.name: product for product in products}

    def of(self, model: str) -> Product:
        """The product of that name."""
        found = self._products.get(model)
        if found is not None:
            return found
        names = " or ".join(self._products)
        if not model:
            raise InvalidRequest(
                f"{len(self._products)} models are served here", fix=f"name one: {names}"
            )
        raise ModelUnknown(f"no model {model[:MAX_ENTITY_ID]!r} here", fix=f"ask for {names}")

    def describe(self, model: str = "") -> LoadedModel:
        """See `Predictor.describe`."""
        return self.of(model).predictor.describe(model)

    async def predict(
        self, entity_ids: Sequence[str], *, model: str = "", deadline: float | None = None
    ) -> list[Prediction]:
        """See `Predictor.predict`."""
        predictor = self.of(model).predictor
        return await predictor.predict(entity_ids, model=model, deadline=deadline)

    async def predict_one(
        self, entity_id: str, *, model: str = "", deadline: float | None = None
    ) -> Prediction:
        """See `Predictor.predict_one`."""
        predictor = self.of(model).predictor
        return await predictor.predict_one(entity_id, model=model, deadline=deadline)

    async def explain(
        self, entity_id: str, *, model: str = ""
    ) -> tuple[Prediction, dict[str, float | None]]:
        """See `Predictor.explain`."""
        return await self.of(model).predictor.explain(entity_id, model=model)

    async def score(
        self, matrix: NDArray[np.float64], *, model: str, deadline: float | None
    ) -> Scored:
        """See `RowScorer.score`."""
        return await self.of(model).scorer.score(matrix, model=model, deadline=deadline)


def predicting(products: Sequence[Product]) -> Predicts:
    """What answers for `products`: of one, its predictor itself."""
    return products[0].predictor if len(products) == 1 else Router(products)


def scoring(products: Sequence[Product]) -> Scores:
    """What scores rows for `products`: of one, its scorer itself."""
    return products[0].scorer if len(products) == 1 else Router(products)
