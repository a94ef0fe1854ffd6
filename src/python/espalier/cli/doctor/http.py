"""One GET of a part, within seconds, whose failure is a line for a person."""

from __future__ import annotations

import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

import httpx

from espalier.errors import DependencyUnreachable
from espalier.serving import listeners

_SECONDS = 5.0
# Where a server that listens on all addresses is reached from here.
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  # not listened on here


def get(url: str, what: str, fix: str, *, accept: tuple[int, ...] = ()) -> httpx.Response:
    """The answer.

    Args:
        url: The address.
        what: Whose it is, for the error.
        fix: What to do when it does not answer.
        accept: Statuses that are answers too, beside those of success.

    Raises:
        DependencyUnreachable: nothing answers there, not in time, or otherwise than it should.
    """
    at = shown(url)
    try:
        answer = httpx.get(url, timeout=_SECONDS, follow_redirects=True)
    except httpx.TimeoutException as error:
        raise DependencyUnreachable(
            f"{what} at {at}: no answer within {_SECONDS:g} s", fix=f"it hangs or is lost: {fix}"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DependencyUnreachable(f"{what} at {at}: {error}", fix=fix) from error
    if not answer.is_success and answer.status_code not in accept:
        raise DependencyUnreachable(
            f"{what} at {at} answered {answer.status_code}",
            fix=f"see its log; or something else listens there: {fix}",
        )
    return answer


def json_of(answer: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer.

    Raises:
        DependencyUnreachable: it is none; another program listens there.
    """
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DependencyUnreachable(
            f"what answers at {shown(str(answer.url))} is another program",
            fix="end it, or correct the address",
        )
    return found


def local(address: str) -> str:
    """HOST:PORT as it is reached from here, of an address that is listened on."""
    host, port = listeners.split(address)
    return f"{EVERYWHERE.get(host.strip('[]'), host)}:{port}"


def shown(url: str) -> str:
    """A URL without the user and password that it may hold."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def speaks_tls(host: str, port: int) -> bool:
    """Whether a server there begins TLS."""
    # Only asked whether it does: nothing is sent.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=2) as plain,
            context.wrap_socket(plain),
        ):
            return True
    except (OSError, ValueError):
        return False
