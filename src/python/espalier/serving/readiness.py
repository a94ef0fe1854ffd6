"""Whether the server can answer predictions, and if not, what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from espalier.errors import FeaturesUnavailable
from espalier.serving.core import Predictor

_CHECK_SECONDS = 1.0


class Publish(Protocol):
    """Tells the world of a change."""

    async def __call__(self, *, is_ready: bool) -> None:
        """The server became ready, or is it no more."""


class Readiness:
    """Checks model and features, once a second and when asked."""

    def __init__(self, predictor: Predictor, *, model_problem: Callable[[], str]) -> None:
        """Describe the check; `model_problem` says why there is no model."""
        self._predictor, self._model_problem = predictor, model_problem
        self._stopping = False
        self._again = asyncio.Event()

    def stop(self) -> None:
        """From now on the server is not ready, since it is stopping."""
        self._stopping = True
        self._again.set()

    def check_soon(self) -> None:
        """Have `run` check now; a model came into force, or a dependency came back."""
        self._again.set()

    async def missing(self) -> list[str]:
        """What stands in the way of predictions, a line each; empty when ready."""
        if self._stopping:
            return ["the server is stopping"]
        model = self._predictor.model
        if model is None:
            return [self._model_problem() or "the model is not loaded yet"]
        try:
            await self._predictor.reader.check(model.source)
        except FeaturesUnavailable as error:
            return [str(error)]
        return []

    async def run(self, publish: Publish) -> None:
        """Tell `publish` at start and at each change whether the server is ready, until cancelled."""
        told: bool | None = None
        while True:
            self._again.clear()
            ready = not await self.missing()
            if ready != told:
                await publish(is_ready=ready)
                told = ready
            try:
                async with asyncio.timeout(_CHECK_SECONDS):
                    await self._again.wait()
            except TimeoutError:
                continue
