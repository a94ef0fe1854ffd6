"""Connections to PostgreSQL, with errors a person can act on."""

from __future__ import annotations

import os
import socket
from typing import Any

import psycopg
from psycopg import sql

from espalier.errors import DependencyUnreachable

Connection = psycopg.Connection[tuple[Any, ...]]
AsyncConnection = psycopg.AsyncConnection[tuple[Any, ...]]

_OPTIONS = "-c timezone=UTC -c search_path=public"
_TIMEOUT_SECONDS = 10


def connect(
    dsn: str, *, autocommit: bool = False, timeout_seconds: int = _TIMEOUT_SECONDS
) -> Connection:
    """Open a connection whose session is in UTC and looks for unqualified names in public alone.

    A server that does not answer within `timeout_seconds`, at least 2, is unreachable.

    Raises:
        DependencyUnreachable: PostgreSQL does not answer or refuses the role.
    """
    try:
        return psycopg.connect(
            dsn, autocommit=autocommit, connect_timeout=timeout_seconds, options=_OPTIONS
        )
    except psycopg.OperationalError as error:
        raise unreachable(error) from error


async def connect_async(dsn: str, *, autocommit: bool = False) -> AsyncConnection:
    """As `connect`, for the running event loop."""
    try:
        return await psycopg.AsyncConnection.connect(
            dsn, autocommit=autocommit, connect_timeout=_TIMEOUT_SECONDS, options=_OPTIONS
        )
    except psycopg.OperationalError as error:
        raise unreachable(error) from error


def only_read(connection: Connection, *, milliseconds: int) -> None:
    """Let the connection's statements change nothing, and end each after so long."""
    connection.execute("SET default_transaction_read_only = on")
    connection.execute(sql.SQL("SET statement_timeout = {}").format(sql.Literal(milliseconds)))


def cut_off(connection: Connection) -> None:
    """End what another thread waits for on the connection; a server that hangs ends nothing."""
    if connection.closed:
        return
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


def unreachable(error: psycopg.Error) -> DependencyUnreachable:
    """The error of a PostgreSQL that cannot be used, without the password of its URI."""
    return DependencyUnreachable(
        f"PostgreSQL: {str(error).strip().splitlines()[-1]}",
        fix="start it, or check POSTGRES_HOST, POSTGRES_PORT, POSTGRES_USER and POSTGRES_PASSWORD",
    )
