"""Whether predictions can be answered, by each model and by the server, and if not, what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from espalier.errors import FeaturesUnavailable
from espalier.serving.core import Predictor

_CHECK_SECONDS = 1.0


class Readiness:
    """Checks a model and its features, once a second and when asked."""

    def __init__(self, predictor: Predictor, *, model_problem: Callable[[], str]) -> None:
        """Describe the check; `model_problem` says why there is no model."""
        self._predictor, self._model_problem = predictor, model_problem
        self._stopping = False
        self._again = asyncio.Event()

    def stop(self) -> None:
        """From now on it is not ready, since the server is stopping."""
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

    async def run(self, changed: Callable[[bool], Awaitable[None]]) -> None:
        """Tell `changed` at start and at each change whether it is ready, until cancelled."""
        told: bool | None = None
        while True:
            self._again.clear()
            ready = not await self.missing()
            if ready != told:
                await changed(ready)
                told = ready
            try:
                async with asyncio.timeout(_CHECK_SECONDS):
                    await self._again.wait()
            except TimeoutError:
                continue


class ServerReadiness:
    """The readiness of a server: it is ready when each of its models is."""

    def __init__(self, models: Mapping[str, Readiness]) -> None:
        """Describe it, by the models' names."""
        self._models = models
        self._ready: dict[str, bool] = {}
        self._told: bool | None = None

    def stop(self) -> None:
        """From now on nothing is ready, since the server is stopping."""
        for model in self._models.values():
            model.stop()

    async def missing(self) -> list[str]:
        """What stands in the way of predictions; of several models, the lines name theirs."""
        found = await asyncio.gather(*(model.missing() for model in self._models.values()))
        if len(found) == 1:
            return found[0]
        return [
            f"{name}: {line}"
            for name, lines in zip(self._models, found, strict=True)
            for line in lines
        ]

    async def run(self, changed: Callable[[str, bool], Awaitable[None]]) -> None:
        """Tell `changed` at start and at each change, until cancelled.

        Its first argument is a model's name, or empty for the server.
        """

        async def note(name: str, is_ready: bool) -> None:  # noqa: FBT001  # as `Readiness` calls
            self._ready[name] = is_ready
            await changed(name, is_ready)
            # What has not told yet is not ready.
            whole = all(self._ready.get(model, False) for model in self._models)
            if whole != self._told:
                self._told = whole
                await changed("", whole)

        await asyncio.gather(
            *(model.run(partial(note, name)) for name, model in self._models.items())
        )
