"""Keeps the predictor's model equal to the registry's champion, and the shadow's to its challenger."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from espalier.errors import BadData, EspalierError, ModelNotReady
from espalier.registry import download
from espalier.registry.manifest import CHAMPION
from espalier.serving.core import Predictor
from espalier.serving.loading import LoadedModel, load
from espalier.serving.shadow import ShadowScorer

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

CHALLENGER = "challenger"
_FIRST_RETRY_SECONDS = 0.25
_REFUSED_SECONDS = 60.0
# Word of a promotion may come before the registry shows it.
_SOON_SECONDS, _SOON_TRIES = 0.2, 25


class ModelObserver(Protocol):
    """Is told what a keeper does, for metrics."""

    def model_loaded(self, model: LoadedModel) -> None:
        """`model` is in force."""

    def model_load_failed(self) -> None:
        """A version could not be loaded, or the registry not be asked."""

    def challenger_loaded(self, version: str | None) -> None:
        """A challenger, or none, scores in the shadow."""


class ModelKeeper:
    """Polls the registry for the champion and swaps it in.

    A new version is downloaded, checked and warmed up beside the old one; the swap itself is one
    assignment. When anything fails, the old one stays in force. The one before stays in memory, so
    a step back needs no download.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        tracking_uri: str,
        into: Path,
        poll_seconds: float,
        shadow: ShadowScorer | None = None,
        observer: ModelObserver | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Describe the model to keep; nothing is asked yet.

        Args:
            predictor: Gets the model; its name is the registered model's.
            tracking_uri: MLflow's address.
            into: The folder that versions are downloaded to.
            poll_seconds: How often the registry is asked.
            shadow: Gets the challenger; None when nothing is scored in the shadow.
            observer: Is told of loads and failures.
            on_change: Called when a model came into force.
        """
        self._predictor, self._shadow = predictor, shadow
        self._observer, self._on_change = observer, on_change
        self._tracking_uri, self._into, self._poll = tracking_uri, into, poll_seconds
        self.problem = "the registry was not asked yet"
        # Versions that could not be loaded, and when to try again, on the loop's clock.
        self._refused: dict[str, float] = {}
        self._previous: LoadedModel | None = None
        self._promoted, self._soon = asyncio.Event(), 0
        self._expected = ""

    def promoted(self, version: str) -> None:
        """Have `run` ask the registry now: `version` is said to be its champion."""
        self._expected, self._soon = version, _SOON_TRIES
        self._promoted.set()

    async def run(self) -> None:
        """Refresh until cancelled; what goes wrong is logged, counted and kept in `problem`."""
        pause = _FIRST_RETRY_SECONDS
        while True:
            self._promoted.clear()
            problem = ""
            try:
                await self.refresh()
                problem = self.problem
                await self.refresh_challenger()
            except EspalierError as error:
                problem = str(error)
            except Exception:  # noqa: BLE001  # see below
                # The keeper outlives any surprise: without it no later model comes into force.
                _log.exception("loading a model failed")
                problem = "an internal error, see the server's log"
            if problem and problem != self.problem:
                _log.warning("champion not in force", extra={"problem": problem})
            self.problem = problem
            ready = self._predictor.model is not None
            pause = self._poll if ready else min(pause * 2, self._poll)
            await self._wait(pause)

    async def _wait(self, pause: float) -> None:
        model = self._predictor.model
        if self._soon and (model is None or model.identity.version != self._expected):
            self._soon -= 1
            pause = min(pause, _SOON_SECONDS)
        try:
            async with asyncio.timeout(pause):
                await self._promoted.wait()
        except TimeoutError:
            return

    async def refresh(self) -> bool:
        """Ask the registry once; true when another model came into force.

        Raises:
            DependencyUnreachable: the registry does not answer, it has no champion yet, or the
                online store lacks the new model's features.
            BadData: the champion cannot be loaded; it is tried again a minute later.
        """
        try:
            return await self._refresh()
        except Exception:
            if self._observer is not None:
                self._observer.model_load_failed()
            raise

    async def refresh_challenger(self) -> None:
        """Give the shadow the registry's challenger, if there is one; a broken one is logged."""
        if self._shadow is None:
            return
        version = await self._alias(CHALLENGER)
        current = self._shadow.model
        if (current.identity.version if current else None) == version:
            return
        model: LoadedModel | None = None
        if version is not None:
            try:
                model = await self._loaded(version)
            except BadData as error:
                _log.warning("challenger not loaded", extra={"problem": str(error)})
                if self._observer is not None:
                    self._observer.model_load_failed()
            if model is None and current is None:
                return
        self._shadow.model = model
        loaded = model.identity.version if model else None
        if self._observer is not None:
            self._observer.challenger_loaded(loaded)
        _log.info("challenger", extra={"version": loaded})

    async def _refresh(self) -> bool:
        name, current = self._predictor.name, self._predictor.model
        version = await self._alias(CHAMPION)
        if version is None:
            raise ModelNotReady(
                f"model {name} has no {CHAMPION} in the registry",
                fix="run the training flow until a model passes its gate",
            )
        if current is not None and current.identity.version == version:
            self.problem = ""
            return False
        if self._previous is not None and self._previous.identity.version == version:
            model: LoadedModel | None = self._previous
        else:
            model = await self._loaded(version)
        if model is None:
            return False
        if current is not None:
            # A model whose features the online store lacks would end what works now.
            await self._predictor.reader.check(model.source)
        self._predictor.model, self.problem, self._previous = model, "", current
        if self._observer is not None:
            self._observer.model_loaded(model)
        replaced = current.identity.version if current else None
        _log.info("model in force", extra={"model": name, "version": version, "replaced": replaced})
        self._on_change()
        return True

    async def _alias(self, alias: str) -> str | None:
        name = self._predictor.name
        return await _beside(lambda: download.current_version(self._tracking_uri, name, alias))

    async def _loaded(self, version: str) -> LoadedModel | None:
        """The version, downloaded and checked; None when it was refused a short while ago."""
        now = asyncio.get_running_loop().time()
        if now < self._refused.get(version, now):
            return None
        try:
            return await _beside(lambda: self._load(version))
        except BadData:
            self._refused = {v: until for v, until in self._refused.items() if until > now}
            self._refused[version] = now + _REFUSED_SECONDS
            raise

    def _load(self, version: str) -> LoadedModel:
        name = self._predictor.name
        fetched = download.fetch_version(self._tracking_uri, name, version, self._into)
        return load(name, version, folder=fetched.folder, manifest=fetched.manifest)


async def _beside(function: Callable[[], Result]) -> Result:
    """What `function` gives, run in a thread that does not hold up the end of the process.

    The loop's own threads do, for as long as a registry that hangs lets its client wait.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]  # there was no error
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as raised:  # noqa: BLE001  # for who awaits
            error = raised
        # Without a loop there is nobody left to tell.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="registry", daemon=True).start()
    return await future
