"""Writes served batches to PostgreSQL, and keeps the log's months: makes them ahead, drops old ones.

Everything here blocks; `log` runs it in a thread.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from espalier.postgres.connect import Connection, connect
from espalier.serving.batching import Origins
from espalier.serving.loading import LoadedModel
from espalier.serving.reader import FeatureRows
from espalier.serving.scorer import valid

_log = logging.getLogger(__name__)

_COPY = (
    "COPY espalier.predictions (served_at, project, model_version, entity_id, score, prediction, "
    "feature_time, features, shadow, request_id, trace_id) FROM STDIN"
)
_HASHES = 2**32
# Of the log's upkeep, so that several workers do not all do it.
_LOCK = 0x6573706D


@dataclass(frozen=True)
class Served:
    """One batch as it was served; its rows are made when they are written."""

    model: LoadedModel
    rows: FeatureRows
    scores: NDArray[np.float64]
    at: datetime
    origins: Origins[str]
    shadow: bool = False


class LogWriter:
    """A connection to the log, opened when needed."""

    def __init__(self, dsn: str, *, sample: float, retention_days: int) -> None:
        """Describe the log; nothing is opened.

        Args:
            dsn: PostgreSQL's connection URI.
            sample: The share of rows that is written; a challenger's row is when its champion's is.
            retention_days: Months that ended so many days ago are dropped; 0 keeps them.
        """
        self._dsn, self._sample, self._retention = dsn, sample, retention_days
        self._connection: Connection | None = None
        self._months: set[tuple[int, int]] = set()
        self._kept_on: date | None = None

    def write(self, batches: Sequence[Served], now: datetime) -> tuple[int, int]:
        """Copy all rows in one transaction; give how many were written and how many left out.

        Raises:
            DependencyUnreachable, psycopg.Error: nothing was written.
        """
        if self._connection is None:
            self._connection = connect(self._dsn, autocommit=True)
        self._keep(self._connection, now)
        for batch in batches:
            self._make_month(self._connection, batch.at)
        written = left_out = 0
        with (
            self._connection.transaction(),
            self._connection.cursor() as cursor,
            cursor.copy(_COPY) as copy,
        ):
            for batch in batches:
                for row in self._rows_of(batch):
                    if row is None:
                        left_out += 1
                    else:
                        copy.write_row(row)
                        written += 1
        return written, left_out

    def close(self) -> None:
        """Close the connection; the next write opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _rows_of(self, batch: Served) -> Iterator[tuple[Any, ...] | None]:
        """A batch's rows; None for one that is not sampled, nothing for an invalid score."""
        threshold = batch.model.manifest.threshold
        project, version = batch.model.manifest.project, batch.model.identity.version
        # A null feature is NaN in the matrix, and null again in the log.
        features = batch.rows.matrix.astype(object)
        features[np.isnan(batch.rows.matrix)] = None
        for key, when, score, ok, values in zip(
            batch.rows.keys,
            batch.rows.times,
            batch.scores.tolist(),
            valid(batch.scores).tolist(),
            features.tolist(),
            strict=True,
        ):
            if not ok:
                continue
            if not self._sampled(key, batch.at):
                yield None
                continue
            caller = batch.origins.get(key)
            yield (
                *(batch.at, project, version, key, score, 1.0 if score >= threshold else 0.0),
                *(when, values, batch.shadow),
                caller.request_id if caller else None,
                (caller.trace_id or None) if caller else None,
            )

    def _sampled(self, key: str, at: datetime) -> bool:
        if self._sample >= 1:
            return True
        # The same for champion and challenger, another one at another time.
        number = zlib.crc32(f"{key} {at.timestamp()}".encode())
        return number < self._sample * _HASHES

    def _make_month(self, connection: Connection, at: datetime) -> None:
        month = (at.year, at.month)
        if month not in self._months:
            connection.execute("SELECT espalier.make_predictions_month(%s)", [at])
            self._months.add(month)

    def _keep(self, connection: Connection, now: datetime) -> None:
        """Once a day: the next month ahead of time, and the old ones away."""
        if self._kept_on == now.date():
            return
        self._make_month(connection, now)
        self._make_month(connection, now.replace(day=1) + timedelta(days=32))
        if self._retention:
            oldest = now - timedelta(days=self._retention)
            try:
                with connection.transaction():
                    # A reader that takes long must not have writers wait behind us.
                    connection.execute("SET LOCAL lock_timeout = '1s'")
                    if connection.execute(
                        "SELECT pg_try_advisory_xact_lock(%s)", [_LOCK]
                    ).fetchone() == (True,):
                        dropped = connection.execute(
                            "SELECT espalier.drop_predictions_before(%s)", [oldest]
                        ).fetchone()
                        _log.info(
                            "old predictions dropped", extra={"months": dropped and dropped[0]}
                        )
            except psycopg.errors.LockNotAvailable:
                _log.info("old predictions are being read, and stay until tomorrow")
        self._kept_on = now.date()
