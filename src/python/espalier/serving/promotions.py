"""Hears of promotions from the database, so that a new champion serves at once."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import psycopg

_log = logging.getLogger(__name__)

CHANNEL = "espalier_promotion"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0


async def listen(dsn: str, promoted: Mapping[str, Callable[[str], None]]) -> None:
    """Call what `promoted` has for a project with the version of each promotion, until cancelled.

    While the database is away nothing is heard; the registry is polled all the same.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                dsn,
                autocommit=True,
                connect_timeout=5,
                application_name="espalier-promotions",
                # A connection that only waits would not notice that the other side is gone.
                keepalives_idle=30,
            ) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                pause = _FIRST_PAUSE
                async for notification in connection.notifies():
                    project, version = _told(notification.payload)
                    if project in promoted:
                        promoted[project](version)
        except psycopg.Error as error:
            problem = str(error).partition("\n")[0]
            _log.info("not listening for promotions", extra={"problem": problem})
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _told(payload: str) -> tuple[str, str]:
    """The project and the version that was promoted; empty when the payload does not tell."""
    try:
        told: Any = json.loads(payload)
        return str(told["project"]), str(told["version"])
    except (ValueError, KeyError, TypeError):
        _log.warning("malformed word of a promotion", extra={"payload": payload[:200]})
        return "", ""
