"""Reads features for scoring from the online store's wide-row table, by one prepared statement."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import psycopg
from numpy.typing import NDArray

from espalier.errors import FeaturesUnavailable
from espalier.features import layout

_log = logging.getLogger(__name__)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class FeatureSource:
    """Which columns of which view a model takes, in its order. Hashable."""

    project: str
    view: str
    join_key: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class FeatureRows:
    """The rows that were found: row i of `matrix` [n, f] is of the entity `keys[i]`.

    The matrix is float64 in the source's feature order, NaN for null; `times[i]` says when the
    row's facts happened, None where that is not known.
    """

    keys: tuple[str, ...]
    times: tuple[datetime | None, ...]
    matrix: NDArray[np.float64]

    def take(self, places: Sequence[int]) -> FeatureRows:
        """The rows at `places`, in that order."""
        return FeatureRows(
            tuple(self.keys[place] for place in places),
            tuple(self.times[place] for place in places),
            self.matrix[list(places)],
        )

    def with_nulls(self, keys: tuple[str, ...]) -> FeatureRows:
        """These rows and one of nulls for each of `keys`."""
        nulls = np.full((len(keys), self.matrix.shape[1]), np.nan)
        return FeatureRows(
            self.keys + keys, self.times + (None,) * len(keys), np.vstack([self.matrix, nulls])
        )


class FeatureReader(Protocol):
    """Where the predictor gets features from."""

    async def read(self, source: FeatureSource, keys: Sequence[str]) -> FeatureRows:
        """The rows of the distinct `keys`, in any order; unknown ones are absent.

        Raises:
            FeaturesUnavailable: the store does not answer, or lacks a column.
        """

    async def check(self, source: FeatureSource) -> None:
        """Raise FeaturesUnavailable unless `read` would work."""


class ClosableReader(FeatureReader, Protocol):
    """A reader that holds connections."""

    async def close(self) -> None:
        """Close the connections that no read uses."""


class WideRowReader:
    """A `FeatureReader` over PostgreSQL.

    Connections open when first needed, so a server starts without its database and uses it when it
    comes. While it is away, reads fail at once except for one try each `retry_seconds`.

    The few connections are kept here and not by psycopg's pool: that one lets a caller wait for
    its whole time-out where a connection is refused at once, and its back-off would find a
    database that came back only minutes later.
    """

    def __init__(
        self,
        dsn: str,
        *,
        connections: int = 3,
        timeout: float = 2.0,
        retry_seconds: float = 0.5,
    ) -> None:
        """Describe the store; nothing is opened.

        Args:
            dsn: PostgreSQL's connection URI.
            connections: How many to open at most.
            timeout: Seconds for one read, and once more for its connection.
            retry_seconds: How long reads fail at once after PostgreSQL did not answer.
        """
        self._dsn, self._timeout, self._retry_seconds = dsn, timeout, retry_seconds
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[Connection] = []
        self._down_until = 0.0
        self._queries: dict[FeatureSource, bytes] = {}

    async def close(self) -> None:
        """Close the connections that no read uses."""
        while self._idle:
            await self._idle.pop().close()

    async def read(self, source: FeatureSource, keys: Sequence[str]) -> FeatureRows:
        """See `FeatureReader.read`."""
        rows = await self._select(source, keys)
        if not rows:
            return FeatureRows((), (), np.empty((0, len(source.features))))
        found, times, *columns = zip(*rows, strict=True)
        # As float64, null (None) becomes NaN.
        matrix = np.array(columns, dtype=np.float64).T
        return FeatureRows(found, times, np.ascontiguousarray(matrix))

    async def check(self, source: FeatureSource) -> None:
        """See `FeatureReader.check`."""
        await self._select(source, [])

    async def _select(self, source: FeatureSource, keys: Sequence[str]) -> Rows:
        loop = asyncio.get_running_loop()
        if loop.time() < self._down_until:
            raise _unavailable("PostgreSQL does not answer")
        query = self._queries.get(source)
        if query is None:
            query = layout.select_rows(
                source.project, source.view, source.join_key, source.features
            ).as_bytes()
            self._queries[source] = query
        try:
            async with asyncio.timeout(self._timeout * 2), self._slots:
                return await self._execute(query, keys)
        except psycopg.errors.QueryCanceled as error:
            raise _unavailable(f"a read took more than {self._timeout:g} s") from error
        except (TimeoutError, psycopg.OperationalError) as error:
            self._down_until = loop.time() + self._retry_seconds
            _log.warning("online store unreachable", extra={"problem": str(error) or "time-out"})
            raise _unavailable("PostgreSQL does not answer") from error
        except psycopg.Error as error:
            raise _unavailable(
                str(error).splitlines()[0], fix="apply and materialize the project's feature view"
            ) from error

    async def _execute(self, query: bytes, keys: Sequence[str]) -> Rows:
        if self._idle:
            try:
                return await self._execute_on(self._idle.pop(), query, keys)
            except psycopg.errors.QueryCanceled:
                raise
            except psycopg.Error:
                # Lost while it was idle, or prepared before the table was changed. The others are
                # likely in the same state; a read changes nothing, so it may run again.
                await self.close()
        return await self._execute_on(await self._connect(), query, keys)

    async def _execute_on(self, connection: Connection, query: bytes, keys: Sequence[str]) -> Rows:
        try:
            cursor = connection.cursor(binary=True)
            await cursor.execute(query, (list(keys),))
            rows = await cursor.fetchall()
        except BaseException:
            # After an error or in mid-read its state is unknown.
            await connection.close()
            raise
        self._idle.append(connection)
        return rows

    async def _connect(self) -> Connection:
        return await psycopg.AsyncConnection.connect(
            self._dsn,
            autocommit=True,
            prepare_threshold=0,
            connect_timeout=max(2, round(self._timeout)),
            options=f"-c timezone=UTC -c statement_timeout={self._timeout * 1e3:.0f}",
            application_name="espalier-serving",
        )


def _unavailable(
    what: str, *, fix: str = "start it, or check POSTGRES_HOST and POSTGRES_PORT"
) -> FeaturesUnavailable:
    return FeaturesUnavailable(f"the online store cannot be read: {what}", fix=fix)
