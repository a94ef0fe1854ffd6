"""Reads features by Feast's SDK, for online stores that the wide-row reader does not know.

Redis, DynamoDB or Feast's own PostgreSQL layout: whatever a `feature_store.yaml` names. It takes
milliseconds a read where the wide-row reader takes a fraction of one, and Feast itself takes
seconds and hundreds of megabytes to import; so nothing imports this module, the server loads it by
its name when `--feature-repo` is given.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from espalier.errors import ConfigurationError, FeaturesUnavailable
from espalier.serving.reader import FeatureRows, FeatureSource

_log = logging.getLogger(__name__)


class FeastReader:
    """A `FeatureReader` over a Feast repository."""

    def __init__(
        self,
        repo: Path,
        *,
        connections: int = 3,
        timeout: float = 5.0,
        integer_keys: bool = False,
    ) -> None:
        """Open the repository; its store is reached at the first read.

        Args:
            repo: The folder with `feature_store.yaml`.
            connections: How many reads may be under way at once.
            timeout: Seconds for one read.
            integer_keys: Whether the entity's keys are integers in Feast.

        Raises:
            ConfigurationError: Feast is not installed here, or cannot use the repository.
        """
        try:
            # Not inferred: a server takes Feast along only by ml_project(reader="feast").
            from feast import FeatureStore  # pants: no-infer-dep
        except ImportError as error:
            raise ConfigurationError(
                "this server carries no Feast", fix='build it with ml_project(reader="feast")'
            ) from error
        try:
            self._store: Any = FeatureStore(repo_path=str(repo))
        except Exception as error:  # Feast's errors share no base
            first = str(error).partition("\n")[0]
            raise ConfigurationError(f"Feast cannot use {repo}: {first}") from error
        self._timeout, self._integer_keys = timeout, integer_keys
        # Feast's SDK blocks; a read that hangs holds one of these threads and no more.
        self._threads = ThreadPoolExecutor(connections, "feast")

    async def read(self, source: FeatureSource, keys: Sequence[str]) -> FeatureRows:
        """See `FeatureReader.read`."""
        if not keys:
            return FeatureRows((), (), np.empty((0, len(source.features))))
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout):
                return await loop.run_in_executor(self._threads, self._read, source, list(keys))
        except TimeoutError as error:
            raise _unavailable(f"a read took more than {self._timeout:g} s") from error
        except Exception as error:  # each store has its own
            _log.warning("online store unreachable", extra={"problem": str(error)})
            raise _unavailable(str(error).partition("\n")[0] or type(error).__name__) from error

    async def check(self, source: FeatureSource) -> None:
        """See `FeatureReader.check`."""
        # There is no entity of that key, but the read goes all the way to the store.
        await self.read(source, ["0" if self._integer_keys else "\u2400"])

    async def close(self) -> None:
        """Let reads under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read(self, source: FeatureSource, keys: list[str]) -> FeatureRows:
        proto = self._store.get_online_features(
            features=[f"{source.view}:{name}" for name in source.features],
            entity_rows=[
                {source.join_key: int(key) if self._integer_keys else key} for key in keys
            ],
        ).proto
        vectors = dict(zip(proto.metadata.feature_names.val, proto.results, strict=True))
        columns = [vectors[name] for name in source.features]
        found, times, rows = [], [], []
        for place, key in enumerate(keys):
            stamps = [column.event_timestamps[place] for column in columns]
            newest = max(stamps, key=lambda stamp: (stamp.seconds, stamp.nanos))
            # Feast gives the epoch for what it does not have.
            if not newest.seconds:
                continue
            found.append(key)
            times.append(_time(newest))
            rows.append([_number(column.values[place]) for column in columns])
        matrix = np.array(rows, dtype=np.float64).reshape(len(rows), len(columns))
        return FeatureRows(tuple(found), tuple(times), matrix)


def _time(stamp: Any) -> datetime:
    when: datetime = stamp.ToDatetime(tzinfo=UTC)
    return when


def _number(value: Any) -> float:
    """A feature's value; NaN for null.

    Raises:
        TypeError, ValueError: it is no number.
    """
    kind = value.WhichOneof("val")
    return float("nan") if kind in (None, "null_val") else float(getattr(value, kind))


def _unavailable(what: str) -> FeaturesUnavailable:
    return FeaturesUnavailable(
        f"the online store cannot be read: {what}", fix="start it, or check feature_store.yaml"
    )
