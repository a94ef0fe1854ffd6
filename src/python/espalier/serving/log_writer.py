"""Writes served batches to PostgreSQL, and keeps the log's months: makes them ahead, drops old ones.

Everything here blocks; `log` runs it in a thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import psycopg

from espalier.errors import DependencyUnreachable
from espalier.postgres import binary
from espalier.postgres.connect import Connection, cut_off, unreachable
from espalier.serving import log_rows
from espalier.serving.log_rows import Served

_log = logging.getLogger(__name__)

# Of the log's upkeep, so that several workers do not all do it.
_LOCK = 0x6573706D
# So few rows are made at once that the event loop does not wait long for the interpreter.
_SLICE_ROWS = 256
_STATUS = "SELECT pg_xact_status(%s::text::xid8)"
_IS_THERE = """
SELECT EXISTS (SELECT FROM espalier.predictions
               WHERE served_at BETWEEN %s AND %s AND xmin = (%s::text::xid8)::xid)
"""


@dataclass(frozen=True)
class Written:
    """What became of batches: rows in the database, and rows that the sample leaves out."""

    written: int
    left_out: int


@dataclass(frozen=True)
class _Doubt:
    """A transaction that may have been committed when its connection was lost."""

    number: str
    batches: Sequence[Served]
    result: Written


class LogWriter:
    """A connection to the log, opened when needed."""

    def __init__(
        self, dsn: str, *, sample: float, retention_days: int, statement_seconds: float = 8.0
    ) -> None:
        """Describe the log; nothing is opened.

        Args:
            dsn: PostgreSQL's connection URI.
            sample: The share of rows that is written; a challenger's row is when its champion's is.
            retention_days: Months that ended so many days ago are dropped; 0 keeps them.
            statement_seconds: When PostgreSQL ends a statement of ours that waits, as for a lock.
        """
        self._dsn, self._sample, self._retention = dsn, sample, retention_days
        self._statement_seconds = statement_seconds
        self._connection: Connection | None = None
        # Over closing the connection: `abort` comes from another thread.
        self._lock, self._is_aborted = threading.Lock(), False
        self._months: set[tuple[int, int]] = set()
        self._kept_on: date | None = None
        self._doubt: _Doubt | None = None

    def write(self, batches: Sequence[Served], now: datetime) -> Written:
        """Copy all rows in one transaction.

        After an error the same `batches` may be given again: rows whose commit succeeded while the
        connection was lost are not written twice.

        Raises:
            DependencyUnreachable, psycopg.Error: nothing was written, as far as is known.
        """
        connection = self._connection or self._connect()
        if self._doubt is not None and (done := self._resolved(connection, self._doubt, batches)):
            return done
        self._keep(connection, now)
        for batch in batches:
            self._make_month(connection, batch.at)
        written = left_out = 0
        with connection.transaction(), connection.cursor() as cursor:
            with cursor.copy(log_rows.COPY) as copy:
                copy.write(binary.HEADER)
                for some in _slices(batches):
                    data, rows, others = log_rows.encoded(some, self._sample)
                    copy.write(data)
                    written, left_out = written + rows, left_out + others
                copy.write(binary.END)
            result = Written(written, left_out)
            cursor.execute("SELECT pg_current_xact_id()::text")
            (number,) = cursor.fetchone() or ("",)
            self._doubt = _Doubt(number, batches, result)
        self._doubt = None
        return result

    def abort(self) -> None:
        """Have a `write` in another thread fail now, whatever the server does; then `close`."""
        with self._lock:
            self._is_aborted = True
            if self._connection is not None:
                cut_off(self._connection)

    def close(self) -> None:
        """Close the connection; the next write opens another one."""
        with self._lock:
            connection, self._connection = self._connection, None
            self._is_aborted = False
            if connection is not None:
                connection.close()

    def _connect(self) -> Connection:
        try:
            connection = psycopg.connect(
                self._dsn,
                autocommit=True,
                # libpq's least.
                connect_timeout=2,
                options=f"-c timezone=UTC -c statement_timeout={self._statement_seconds * 1e3:.0f}",
                application_name="espalier-log",
            )
        except psycopg.OperationalError as error:
            raise unreachable(error) from error
        with self._lock:
            if self._is_aborted:
                connection.close()
                raise DependencyUnreachable("the prediction log took too long to connect")
            self._connection = connection
        # It may be another database.
        self._months, self._kept_on = set(), None
        return connection

    def _resolved(
        self, connection: Connection, doubt: _Doubt, batches: Sequence[Served]
    ) -> Written | None:
        """The result of an earlier write of `batches` that was committed, otherwise None."""
        assert doubt.batches is batches, "batches in doubt are written again, and nothing before"
        try:
            status = connection.execute(_STATUS, [doubt.number]).fetchone()
        except psycopg.errors.InvalidParameterValue:
            # A database that was set up anew, or restored, does not know the number.
            status = None
        if status == ("in progress",):
            raise DependencyUnreachable("an earlier write to the prediction log is not over yet")
        is_there: tuple[object, ...] | None = None
        if status == ("committed",):
            # A server that crashed gives the number of a transaction whose end it never wrote down
            # to another one; and a commit of this moment is seen by the next statement only.
            times = [batch.at for batch in batches]
            rows = [min(times), max(times), doubt.number]
            is_there = connection.execute(_IS_THERE, rows).fetchone()
        self._doubt = None
        return doubt.result if is_there == (True,) else None

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


def _slices(batches: Sequence[Served]) -> Iterator[list[Served]]:
    some: list[Served] = []
    rows = 0
    for batch in batches:
        some.append(batch)
        rows += len(batch.rows.keys)
        if rows >= _SLICE_ROWS:
            yield some
            some, rows = [], 0
    yield some
