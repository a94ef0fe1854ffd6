"""The few connections to the online store, and what is done while it is away."""

from __future__ import annotations

import asyncio
import logging

from espalier.errors import FeaturesUnavailable
from espalier.serving.store_connection import ConnectionLost, StoreConnection

_log = logging.getLogger(__name__)


class StorePool:
    """Connections that open when first needed, `take`n for one read and `give`n back.

    When PostgreSQL does not answer, all who ask are refused at once, and one task tries to connect
    until it does: so no caller waits for a database that hangs, and no connections pile up there.
    When it has no connection left for us but we have some, those are shared.

    psycopg's pool lets a caller wait for its whole time-out where a connection is refused at once,
    and its back-off would find a database that came back only minutes later.
    """

    def __init__(self, dsn: str, *, connections: int, timeout: float, retry_seconds: float) -> None:
        """Describe the pool; nothing is opened. See `WideRowReader` for the arguments."""
        self._dsn, self._most = dsn, connections
        self._timeout, self._retry_seconds = timeout, retry_seconds
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[StoreConnection] = []
        self._in_use = 0
        self._problem, self._found = "", 0.0
        self._probing: asyncio.Task[None] | None = None

    async def take(self) -> StoreConnection:
        """A connection for one read.

        Raises:
            FeaturesUnavailable: PostgreSQL does not answer, or all connections stay in use.
        """
        while True:
            if self._problem:
                raise self._unavailable()
            await self._acquire_slot()
            # It may have gone away while we waited.
            if self._problem:
                self._slots.release()
                raise self._unavailable()
            while self._idle:
                connection = self._idle.pop()
                if connection.is_open:
                    self._in_use += 1
                    return connection
            try:
                connection = await StoreConnection.open(self._dsn, seconds=self._timeout)
            except ConnectionLost as error:
                if not (self._in_use or self._idle):
                    self._slots.release()
                    raise self.lost(str(error)) from error
                # The others work: one of them will do, until it is time to ask again.
                asyncio.get_running_loop().call_later(self._retry_seconds, self._slots.release)
            except BaseException:
                self._slots.release()
                raise
            else:
                self._in_use += 1
                return connection

    def give(self, connection: StoreConnection) -> None:
        """Give a taken connection back, open or not."""
        self._in_use -= 1
        if connection.is_open:
            self._idle.append(connection)
        self._slots.release()

    def lost(self, problem: str, connection: StoreConnection | None = None) -> FeaturesUnavailable:
        """Note that PostgreSQL does not answer, on `connection`; gives the error for who asked."""
        if connection is not None and connection.opened < self._found:
            # It was away since, and answers again.
            return unavailable(problem, fix="try again")
        self._drop_idle()
        if not self._problem:
            _log.warning("online store unreachable", extra={"problem": problem})
        self._problem = problem or "no reason given"
        if self._probing is None:
            self._probing = asyncio.get_running_loop().create_task(self._probe())
        return self._unavailable()

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def close(self) -> None:
        """Close what no read uses, and stop trying to connect."""
        self._drop_idle()
        if self._probing is not None:
            self._probing.cancel()

    async def _acquire_slot(self) -> None:
        if not self._slots.locked():
            await self._slots.acquire()
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._slots.acquire()
        except TimeoutError as error:
            raise unavailable(
                f"its {self._most} connections were in use for {self._timeout:g} s",
                fix="try again when there is less load",
            ) from error

    async def _probe(self) -> None:
        """Try to connect, again and again, until PostgreSQL answers."""
        try:
            while True:
                await asyncio.sleep(self._retry_seconds)
                try:
                    connection = await StoreConnection.open(self._dsn, seconds=self._timeout)
                except ConnectionLost as error:
                    self._problem = str(error) or self._problem
                else:
                    break
        finally:
            self._probing = None
        self._problem, self._found = "", connection.opened
        # Reads that hung may be answered too, and their connections come back.
        if self._in_use + len(self._idle) < self._most:
            self._idle.append(connection)
        else:
            connection.close()
        _log.info("online store reachable")

    def _unavailable(self) -> FeaturesUnavailable:
        return unavailable(f"PostgreSQL does not answer ({self._problem})")


def unavailable(
    what: str, *, fix: str = "start it, or check POSTGRES_HOST and POSTGRES_PORT"
) -> FeaturesUnavailable:
    """The error of an online store that cannot be read."""
    return FeaturesUnavailable(f"the online store cannot be read: {what}", fix=fix)
