"""Structured logs: one JSON object a line on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from espalier.serving.caller import CURRENT

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """A record as JSON: time, level, logger, event, what was given as `extra`, and the trace.

    What is logged for a request has its id too, its token's name, and the ids of its W3C trace.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        values: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        # Whose request it was that had it logged.
        if (caller := CURRENT.get()) is not None:
            values["request_id"] = caller.request_id
            values |= {"token": caller.token} if caller.token else {}
            values |= {"trace_id": caller.trace_id} if caller.trace_id else {}
            values |= {"parent_id": caller.parent_id} if caller.parent_id else {}
        values |= {k: v for k, v in vars(record).items() if k not in _STANDARD}
        if record.exc_info:
            values["trace"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str, ensure_ascii=False)


def configure(level: str) -> None:
    """Send all logs from `level` up to standard error; call once, at a program's start.

    Raises:
        ValueError: there is no such level.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # A library's warning is a line of the log too.
    logging.captureWarnings(True)  # noqa: FBT003  # the standard library's signature
    for chatty in ("httpx", "httpcore", "uvicorn.error", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
