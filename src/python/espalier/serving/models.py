"""Keeps the predictor's model equal to the registry's champion."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from espalier.errors import BadData, EspalierError, ModelNotReady
from espalier.registry import download
from espalier.registry.manifest import CHAMPION
from espalier.serving.core import Predictor
from espalier.serving.loading import LoadedModel, load

_log = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS = 0.25
_REFUSED_SECONDS = 60.0


class ModelObserver(Protocol):
    """Is told what a keeper does, for metrics."""

    def model_loaded(self, model: LoadedModel) -> None:
        """`model` is in force."""

    def model_load_failed(self) -> None:
        """A version could not be loaded, or the registry not be asked."""


class ModelKeeper:
    """Polls the registry for the champion and swaps it in.

    A new version is downloaded, checked and warmed up beside the old one; the swap itself is one
    assignment. When anything fails, the old one stays in force.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        tracking_uri: str,
        into: Path,
        poll_seconds: float,
        observer: ModelObserver | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Describe the model to keep; nothing is asked yet.

        Args:
            predictor: Gets the model; its name is the registered model's.
            tracking_uri: MLflow's address.
            into: The folder that versions are downloaded to.
            poll_seconds: How often the registry is asked.
            observer: Is told of loads and failures.
            on_change: Called when a model came into force.
        """
        self._predictor, self._observer, self._on_change = predictor, observer, on_change
        self._tracking_uri, self._into, self._poll = tracking_uri, into, poll_seconds
        self.problem = "the registry was not asked yet"
        self._refused = _Refused("", 0.0)

    async def run(self) -> None:
        """Refresh until cancelled; what goes wrong is logged, counted and kept in `problem`."""
        pause = _FIRST_RETRY_SECONDS
        while True:
            problem = ""
            try:
                await self.refresh()
                problem = self.problem
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
            await asyncio.sleep(pause)

    async def refresh(self) -> bool:
        """Ask the registry once; true when another model came into force.

        Raises:
            DependencyUnreachable: the registry does not answer, it has no champion yet, or the
                online store lacks the new model's features.
            BadData: the champion cannot be loaded; it is tried again a minute later.
        """
        try:
            changed = await self._refresh()
        except Exception:
            if self._observer is not None:
                self._observer.model_load_failed()
            raise
        return changed

    async def _refresh(self) -> bool:
        name, current = self._predictor.name, self._predictor.model
        version = await asyncio.to_thread(
            download.current_version, self._tracking_uri, name, CHAMPION
        )
        if version is None:
            raise ModelNotReady(
                f"model {name} has no {CHAMPION} in the registry",
                fix="run the training flow until a model passes its gate",
            )
        if current is not None and current.identity.version == version:
            self.problem = ""
            return False
        now = asyncio.get_running_loop().time()
        if self._refused.version == version and now < self._refused.until:
            return False
        try:
            model = await asyncio.to_thread(self._load, version)
        except BadData:
            self._refused = _Refused(version, now + _REFUSED_SECONDS)
            raise
        if current is not None:
            # A model whose features the online store lacks would end what works now.
            await self._predictor.reader.check(model.source)
        self._predictor.model, self.problem = model, ""
        if self._observer is not None:
            self._observer.model_loaded(model)
        replaced = current.identity.version if current else None
        _log.info("model in force", extra={"model": name, "version": version, "replaced": replaced})
        self._on_change()
        return True

    def _load(self, version: str) -> LoadedModel:
        name = self._predictor.name
        fetched = download.fetch_version(self._tracking_uri, name, version, self._into)
        return load(name, version, folder=fetched.folder, manifest=fetched.manifest)


@dataclass(frozen=True)
class _Refused:
    """A version that could not be loaded, and when to try it again, on the loop's clock."""

    version: str
    until: float
