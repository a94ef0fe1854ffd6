"""The addresses a server listens on, and their errors in words a person can act on."""

from __future__ import annotations

import ipaddress
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from espalier.errors import ConfigurationError

_LAST_PORT = 65_535
BACKLOG = 2048
_MOST_CONNECTIONS = 10_000
# Files that are no connections of clients: the database's, a model's while it is loaded, logs.
_OWN_FILES = 128
_MOST_FILES = 65_536


def split(address: str) -> tuple[str, int]:
    """The host and port of `HOST:PORT`; the port 0 asks for a free one.

    Raises:
        ConfigurationError: it is not of that form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > _LAST_PORT:
        raise ConfigurationError(
            f"{address!r} is not an address to listen on", fix="write HOST:PORT, 127.0.0.1:8000"
        )
    return host, int(port)


def require_loopback(address: str, what: str) -> None:
    """Refuse an address that other machines reach.

    Raises:
        ConfigurationError: it is not of this machine alone, or malformed.
    """
    host, _ = split(address)
    bare = host.strip("[]")
    try:
        loopback = ipaddress.ip_address(bare).is_loopback
    except ValueError:
        # A name may mean anything tomorrow, so only this one is taken at its word.
        loopback = bare == "localhost"
    if not loopback:
        raise ConfigurationError(
            f"{what} at {address} would be open to other machines without encryption",
            fix="give --tls-certificate and --tls-key, or --insecure-address-ok where something "
            "else protects it",
        )


def allow_connections() -> int:
    """How many connections each of the two transports may have, so that files are left for us.

    Raises this process's limit of open files as far as it may: shells commonly allow 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(1, min(_MOST_CONNECTIONS, (files - _OWN_FILES) // 2))


@contextmanager
def bound(
    host: str, port: int, what: str, *, shared: bool = False, listen: bool = True
) -> Iterator[socket.socket]:
    """A TCP socket that listens there for `what`.

    With `shared`, other processes of this user may listen on the same port, each taking a part of
    the connections (SO_REUSEPORT). Without `listen`, it only keeps the port.

    Raises:
        ConfigurationError: the address is not ours, or in use.
    """
    bare = host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET)
    with listener:
        # A port whose last connections are only lingering is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind((bare, port))
        except OSError as error:
            raise ConfigurationError(
                f"{what} cannot listen on {host}:{port}: {error.strerror or error}",
                fix="end what listens there, or choose another address",
            ) from error
        if listen:
            listener.listen(BACKLOG)
        yield listener
