"""Who calls: the request's id, the token's name and the trace it belongs to."""

from __future__ import annotations

import itertools
import re
import uuid
from contextvars import ContextVar
from dataclasses import dataclass, field

REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"

# Ours only count up: a random part for each process, then a number.
_PREFIX = uuid.uuid4().hex[:12]
_NUMBERS = itertools.count(1)
_GIVEN_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,64}")
# W3C Trace Context, version 00; a later version begins alike.
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class Caller:
    """One request's origin. `token` names the bearer token, empty when none was asked for.

    `trace_id`, `parent_id` and `sampled` come from the caller's W3C `traceparent`; empty without one.
    With tracing, `span` is the request's own, and a request without a trace gets one.
    """

    request_id: str
    token: str = ""
    trace_id: str = ""
    parent_id: str = ""
    sampled: bool = False
    span: object = field(default=None, compare=False, repr=False)


CURRENT: ContextVar[Caller | None] = ContextVar("caller", default=None)


def identify(request_id: str | None, traceparent: str | None, *, token: str = "") -> Caller:
    """The caller of a request with these headers.

    A request id that is longer than 64 characters, or could not stand in a log line as it is, is
    replaced by one of ours; a malformed traceparent is ignored, as its specification asks.
    """
    if request_id is None or not _GIVEN_ID.fullmatch(request_id):
        request_id = f"{_PREFIX}-{next(_NUMBERS):x}"
    if traceparent is not None and (match := _PARENT.fullmatch(traceparent)):
        trace, parent = match[1], match[2]
        if trace != _NO_TRACE and parent != _NO_SPAN:
            return Caller(request_id, token, trace, parent, bool(int(match[3], 16) & _SAMPLED))
    return Caller(request_id, token)
