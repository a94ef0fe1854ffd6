"""What a caller is told of an error: enough to act on, and nothing of what is behind the server."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from espalier.errors import DependencyUnreachable, EspalierError, FeaturesUnavailable, Overloaded
from espalier.serving.caller import CURRENT

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Refusal:
    """An error as told: `code` names a gRPC status, `retry_seconds` says when to try again."""

    code: str
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_seconds: float | None = None


def refusal(error: Exception, method: str) -> Refusal:
    """What the caller of `method` is told.

    An error of ours is told as it is, but for the online store's, whose text names tables and
    hosts. Any other is logged under an id and only that is told: its text may hold anything.
    """
    caller = CURRENT.get()
    metadata = {} if caller is None else {"request_id": caller.request_id}
    if not isinstance(error, EspalierError):
        error_id = log_unexpected(error, method)
        message = f"internal error {error_id}; find it in the server's log"
        return Refusal("INTERNAL", "INTERNAL", message, {**metadata, "error_id": error_id})
    message = str(error)
    if isinstance(error, FeaturesUnavailable):
        message = "the features cannot be read at present; try again after a pause"
    retry = None
    if isinstance(error, Overloaded | DependencyUnreachable):
        retry = float(error.metadata.get("retry_seconds", _RETRY_SECONDS))
    return Refusal(error.code, error.reason, message, {**metadata, **error.metadata}, retry)


def log_unexpected(error: Exception, method: str) -> str:
    """Log an error that is not one of ours, with its trace; give the id it is logged under."""
    error_id = uuid.uuid4().hex[:12]
    _log.error("unexpected error", exc_info=error, extra={"error_id": error_id, "method": method})
    return error_id
