"""The page of exit codes and error reasons, from errors.py."""

from __future__ import annotations

import inspect

from docs.markup import code, page, table
from espalier import errors
from espalier.errors import EspalierError
from espalier.serving.http_service import _STATUS

_CODES = """
An error is one line on standard error: what is wrong, where, and what to do.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a gate or a check said no, or something unexpected happened |
| 2 | wrong use or configuration |
| 3 | a dependency is unreachable |
| 4 | bad data |
| 130 | ended by Ctrl-C, SIGTERM or a closed terminal |
"""
_REASONS = """
## Reasons

Over gRPC an error has a status and `google.rpc.ErrorInfo` with the domain `espalier.dev` and the
reason. Over HTTP it has the status and `{"reason": ..., "message": ...}`. Where coming again helps,
`RetryInfo` and `Retry-After` say when. A command that meets the error ends with the
exit code. Anything that is none of these is `INTERNAL`, 500: only an id is told, and the log has
the rest under it.
"""


def rendered() -> str:
    """The page."""
    kinds = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, EspalierError) and kind is not EspalierError
    ]
    kinds.sort(key=lambda kind: kind.reason)
    rows = [
        (
            code(kind.reason),
            code(kind.code),
            str(_STATUS.get(kind.code, 500)),
            str(kind.exit_code),
            inspect.getdoc(kind) or "",
        )
        for kind in kinds
    ]
    return page(
        "Exit codes and errors",
        "src/python/espalier/errors.py",
        _CODES,
        _REASONS,
        table(("reason", "gRPC", "HTTP", "exit code", "when"), rows),
    )
