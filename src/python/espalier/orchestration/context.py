"""What every flow begins with: its settings, its project, and a database of this release."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from espalier import settings
from espalier.errors import ConfigurationError
from espalier.orchestration.interruptible import interruptible
from espalier.postgres.connect import connect
from espalier.postgres.migrate import pending
from espalier.project import Project, load_project
from espalier.settings import Settings


@dataclass(frozen=True)
class FlowContext:
    """Where a flow works, and for which product."""

    settings: Settings
    project: Project


@contextmanager
def begin(project: str) -> Iterator[FlowContext]:
    """Read the settings, find the project, and look at the database; a SIGTERM ends it in order.

    Raises:
        ConfigurationError: a setting is not valid, there is no such project, or the database lacks
            migrations of this release.
        DependencyUnreachable: PostgreSQL does not answer.
    """
    begun = FlowContext(settings.load(), load_project(project))
    with connect(begun.settings.dsn) as connection:
        missing = len(pending(connection))
    if missing:
        raise ConfigurationError(
            f"the database {begun.settings.postgres_db} lacks {missing} of this release's migrations",
            fix="apply them with: espalier migrate",
        )
    with interruptible():
        yield begun
