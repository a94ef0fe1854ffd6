"""One error tree for the whole platform: a reason, a gRPC status name and an exit code each.

A message says what is wrong, where, and what to do, on one line. Transports read `code` and
`reason`; command lines read `exit_code`. This module imports nothing of the project, so every
other one may raise from it.
"""

from __future__ import annotations

from typing import Any, ClassVar


class EspalierError(Exception):
    """An error that a person or a caller can act on.

    `reason` is the UPPER_SNAKE reason of `google.rpc.ErrorInfo` (AIP-193), `code` the name of the
    gRPC status, `exit_code` what a command line returns.
    """

    reason: ClassVar[str] = "INTERNAL"
    code: ClassVar[str] = "INTERNAL"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, fix: str = "", **metadata: str) -> None:
        """Describe one failure.

        Args:
            message: What is wrong and where.
            fix: What to do about it.
            metadata: Values for a program to read; sent to clients in `ErrorInfo.metadata`.
        """
        super().__init__(message, fix)
        self.message = " ".join(message.split())
        self.fix = " ".join(fix.split())
        self.metadata = metadata

    def __reduce__(self) -> tuple[Any, ...]:
        """How it reaches another process, such as a Dask worker's client."""
        return _rebuild, (type(self), self.message, self.fix, self.metadata)

    def __str__(self) -> str:
        """The whole error on one line."""
        return f"{self.message}; {self.fix}" if self.fix else self.message


def _rebuild(
    kind: type[EspalierError], message: str, fix: str, metadata: dict[str, str]
) -> EspalierError:
    return kind(message, fix=fix, **metadata)


class UsageError(EspalierError):
    """A command or call was written wrongly."""

    reason, code, exit_code = "INVALID_USE", "INVALID_ARGUMENT", 2


class ConfigurationError(UsageError):
    """A setting is missing or has no valid value."""

    reason, code = "INVALID_CONFIGURATION", "FAILED_PRECONDITION"


class DependencyUnreachable(EspalierError):
    """A service that this one needs does not answer."""

    reason, code, exit_code = "DEPENDENCY_UNREACHABLE", "UNAVAILABLE", 3


class BadData(EspalierError):
    """Data broke its contract; nothing of it was stored."""

    reason, code, exit_code = "BAD_DATA", "INVALID_ARGUMENT", 4


class TooFewRows(BadData):
    """There are too few rows to tell anything from chance."""

    reason = "TOO_FEW_ROWS"


class BatchLate(EspalierError):
    """A batch did not come within the time that it was waited for."""

    reason, code, exit_code = "BATCH_LATE", "UNAVAILABLE", 3


class CheckRefused(EspalierError):
    """A check or a gate said no; what was there before stays in force."""

    reason, code, exit_code = "CHECK_REFUSED", "FAILED_PRECONDITION", 1


class SnapshotConflict(CheckRefused):
    """Another content is already stored under the same `as_of`."""

    reason, code = "SNAPSHOT_CONFLICT", "ALREADY_EXISTS"


class GateRefused(CheckRefused):
    """A challenger did not pass the gate and was not promoted."""

    reason = "GATE_REFUSED"


class MigrationConflict(CheckRefused):
    """The database's applied migrations are not the ones in this release."""

    reason = "MIGRATION_CONFLICT"


class ModelNotReady(DependencyUnreachable):
    """No model is loaded yet."""

    reason = "MODEL_NOT_READY"


class FeaturesUnavailable(DependencyUnreachable):
    """The online store does not answer."""

    reason = "FEATURES_UNAVAILABLE"


class ModelUnknown(EspalierError):
    """This server does not serve the named model."""

    reason, code, exit_code = "MODEL_UNKNOWN", "NOT_FOUND", 2


class EntityUnknown(EspalierError):
    """The online store has no row for the entity."""

    reason, code, exit_code = "ENTITY_UNKNOWN", "NOT_FOUND", 2


class FeaturesUnusable(EspalierError):
    """The entity's features are missing or stale, and the project refuses to predict with them."""

    reason, code, exit_code = "FEATURES_UNUSABLE", "FAILED_PRECONDITION", 1


class InvalidRequest(UsageError):
    """A request's fields are outside of what the contract allows."""

    reason = "INVALID_REQUEST"


class Overloaded(EspalierError):
    """The queue is full; try again after a pause."""

    reason, code = "OVERLOADED", "RESOURCE_EXHAUSTED"


class RateLimited(Overloaded):
    """The caller has used up its rate; try again after a pause."""

    reason = "RATE_LIMITED"


class Unauthenticated(EspalierError):
    """The call needs a valid token."""

    reason, code, exit_code = "UNAUTHENTICATED", "UNAUTHENTICATED", 2


class DeadlineTooShort(EspalierError):
    """The caller's deadline passed, or would pass before an answer."""

    reason, code = "DEADLINE_TOO_SHORT", "DEADLINE_EXCEEDED"


class ScoreInvalid(EspalierError):
    """The model gave a score that is not a number or outside of its range."""

    reason = "SCORE_INVALID"
