"""Reads features for scoring from the online store's wide-row table, by one prepared statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from psycopg.pq.abc import PGresult

from espalier.errors import FeaturesUnavailable
from espalier.serving import wide_rows
from espalier.serving.store_connection import (
    ConnectionLost,
    ServerHangs,
    StatementFailed,
    StoreConnection,
)
from espalier.serving.store_pool import StorePool, unavailable

# SQLSTATE of a statement that the server ended by its time limit.
_TOOK_TOO_LONG = "57014"


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
    comes. While it is away, reads fail at once and one task looks for it each `retry_seconds`.
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
            timeout: Seconds for one read, once more for its connection, and to wait for a free one.
            retry_seconds: The pause between tries to connect after PostgreSQL did not answer.
        """
        self._timeout, self._connections = timeout, connections
        self._pool = StorePool(
            dsn, connections=connections, timeout=timeout, retry_seconds=retry_seconds
        )
        self._queries: dict[FeatureSource, bytes] = {}

    async def close(self) -> None:
        """Close the connections that no read uses."""
        self._pool.close()

    async def read(self, source: FeatureSource, keys: Sequence[str]) -> FeatureRows:
        """See `FeatureReader.read`."""
        result = await self._select(source, keys)
        return FeatureRows(*wide_rows.rows_of(result, len(source.features)))

    async def check(self, source: FeatureSource) -> None:
        """See `FeatureReader.check`."""
        await self._select(source, [])

    async def _select(self, source: FeatureSource, keys: Sequence[str]) -> PGresult:
        parameter = wide_rows.array_literal(keys)
        # A read changes nothing, so it may run again: on each of the other connections, which are
        # perhaps in the same state, and then on a new one.
        for left in range(self._connections, -1, -1):
            is_known = source in self._queries
            connection = await self._pool.take()
            try:
                return await self._select_on(connection, source, parameter)
            except ServerHangs as error:
                raise self._pool.lost(str(error), connection) from error
            except ConnectionLost as error:
                if not left:
                    raise self._pool.lost(str(error), connection) from error
            except StatementFailed as error:
                # One that worked was perhaps prepared before the table was changed.
                if error.state == _TOOK_TOO_LONG or not is_known or not left:
                    raise self._failed(error) from error
                connection.close()
                self._queries.pop(source, None)
            finally:
                self._pool.give(connection)
        raise AssertionError("the last round returns or raises")

    async def _select_on(
        self, connection: StoreConnection, source: FeatureSource, parameter: bytes
    ) -> PGresult:
        query = self._queries.get(source)
        if query is None:
            plain = wide_rows.plain_query(
                source.project, source.view, source.join_key, source.features
            )
            types = await connection.column_types(plain)
            query = wide_rows.row_query(plain, source.join_key, source.features, types)
            self._queries[source] = query
        return await connection.select(query, parameter)

    def _failed(self, error: StatementFailed) -> FeaturesUnavailable:
        if error.state == _TOOK_TOO_LONG:
            return unavailable(
                f"a read took more than {self._timeout:g} s", fix="try again after a pause"
            )
        return unavailable(str(error), fix="apply and materialize the project's feature view")
