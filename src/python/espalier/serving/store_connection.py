"""A connection to PostgreSQL for small reads by prepared statements, without psycopg's cursors.

A cursor costs more than the read itself: adapters, generators and a Python object a value. Here
libpq's own calls are driven by the event loop, and a value stays bytes. A read that takes too long
ends at once: psycopg would ask the server to cancel it, and a server that hangs does not answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import psycopg
from psycopg import pq

# Of results, as libpq numbers it.
_BINARY = 1
# The server ends a statement that takes too long; when it has not by so much later, it hangs.
_GRACE = 1.25
_DONE = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)


class ConnectionLost(Exception):
    """The server ended the connection, or cannot be reached."""


class ServerHangs(ConnectionLost):
    """The server does not answer; the connection is closed."""


class StatementFailed(Exception):
    """The server refused a statement; `state` is its SQLSTATE. The connection is good."""

    def __init__(self, state: str, message: str) -> None:
        """Keep what the server said."""
        super().__init__(message)
        self.state = state


class StoreConnection:
    """One connection, for one statement at a time; `opened` at that time of the event loop."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], seconds: float) -> None:
        """Take over an open `connection`; see `open`."""
        self._connection, self._pg = connection, connection.pgconn
        self._limit = seconds * _GRACE
        self._loop = asyncio.get_running_loop()
        self.opened = self._loop.time()
        self._socket = self._pg.socket
        self._answer: asyncio.Future[None] | None = None
        self._statements: dict[bytes, bytes] = {}
        # For as long as it is open, so that a connection that ends while it is idle is noticed.
        self._loop.add_reader(self._socket, self._on_readable)

    @classmethod
    async def open(cls, dsn: str, *, seconds: float) -> Self:
        """Connect; `seconds` are allowed for that, and for each statement.

        Raises:
            ConnectionLost: the server does not answer, or refuses.
        """
        try:
            async with asyncio.timeout(seconds):
                connection = await psycopg.AsyncConnection.connect(
                    dsn,
                    autocommit=True,
                    client_encoding="UTF8",
                    options=f"-c timezone=UTC -c statement_timeout={seconds * 1e3:.0f}",
                    application_name="espalier-serving",
                )
        except TimeoutError as error:
            raise ServerHangs(f"no answer within {seconds:g} s") from error
        except psycopg.Error as error:
            raise ConnectionLost(str(error).strip().splitlines()[-1]) from error
        return cls(connection, seconds)

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._pg.status == pq.ConnStatus.OK

    @property
    def backend_pid(self) -> int:
        """The server's process for it."""
        return self._pg.backend_pid

    def close(self) -> None:
        """Close it now, whatever the server does."""
        if self._pg.status == pq.ConnStatus.OK or self._socket >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = -1
        self._pg.finish()

    async def column_types(self, query: bytes) -> list[int]:
        """The type numbers of the columns of `query`, whose one parameter is an array."""
        result = await self._run(
            lambda: self._pg.send_query_params(query, [b"{}"], result_format=_BINARY)
        )
        return [result.ftype(column) for column in range(result.nfields)]

    async def select(self, query: bytes, parameter: bytes) -> pq.abc.PGresult:
        """The rows of `query`, values in binary, for the text of its one parameter.

        Raises:
            ConnectionLost, StatementFailed
        """
        name = self._statements.get(query)
        if name is None:
            name = b"s%d" % len(self._statements)
            await self._run(lambda: self._pg.send_prepare(name, query))
            self._statements[query] = name
        return await self._run(
            lambda: self._pg.send_query_prepared(name, [parameter], result_format=_BINARY)
        )

    async def _run(self, send: Callable[[], None]) -> pq.abc.PGresult:
        """Send a statement and wait for its result."""
        pg, loop = self._pg, self._loop
        answer = self._answer = loop.create_future()
        timer = loop.call_later(self._limit, self._on_timeout)
        try:
            send()
            if pg.flush():
                loop.add_writer(self._socket, self._on_writable)
            await answer
            result = pg.get_result()
            while pg.get_result() is not None:
                pass
        except psycopg.Error as error:
            self.close()
            raise ConnectionLost(str(error).strip() or "closed") from error
        except BaseException:
            # In mid-statement its state is unknown.
            self.close()
            raise
        finally:
            timer.cancel()
            self._answer = None
        if result is not None and result.status in _DONE:
            if not self.is_open:
                self.close()
            return result
        if result is None or not self.is_open:
            self.close()
            raise ConnectionLost("closed by the server")
        state, text = (
            (result.error_field(field) or b"").decode(errors="replace")
            for field in (pq.DiagnosticField.SQLSTATE, pq.DiagnosticField.MESSAGE_PRIMARY)
        )
        raise StatementFailed(state, text)

    def _on_readable(self) -> None:
        try:
            self._pg.consume_input()
            is_done = not self._pg.is_busy()
        except psycopg.Error as error:
            self._lose(error)
            return
        if is_done:
            self._settle(None)
        if not self.is_open:
            self.close()

    def _on_writable(self) -> None:
        try:
            if not self._pg.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._lose(error)

    def _lose(self, error: psycopg.Error) -> None:
        """End here and now, not when who waits runs next.

        libpq has closed the socket by itself, so a connection opened until then may have its number,
        and the loop would take the one for the other.
        """
        self._settle(ConnectionLost(str(error).strip()))
        self.close()

    def _on_timeout(self) -> None:
        # What came while the loop was busy elsewhere is no time-out.
        self._on_readable()
        self._settle(ServerHangs(f"no answer within {self._limit:g} s"))

    def _settle(self, error: ConnectionLost | None) -> None:
        answer = self._answer
        if answer is None or answer.done():
            return
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)
