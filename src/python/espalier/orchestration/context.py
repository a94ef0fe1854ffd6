"""What every flow begins with: its settings, its project, and a database of this release."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from espalier import settings
from espalier.errors import CheckRefused, ConfigurationError, DependencyUnreachable
from espalier.monitoring.flow_runs import record_flow
from espalier.orchestration.interruptible import interruptible
from espalier.postgres.connect import connect
from espalier.postgres.migrate import pending
from espalier.project import Project, load_project
from espalier.settings import Settings
from espalier.training.program import Program, identify


@dataclass(frozen=True)
class FlowContext:
    """Where a flow works, and for which product."""

    settings: Settings
    project: Project

    def program(self) -> Program:
        """The program that runs, for the provenance of what it trains."""
        return identify(
            pex=settings.running_pex(),
            baked_commit=self.settings.git_commit,
            folder=Path.cwd(),
        )


@contextmanager
def begin(project: str, *, flow: str = "") -> Iterator[FlowContext]:
    """Read the settings, find the project, and look at the database; a SIGTERM ends it in order.

    With the flow's name, how the run ended is recorded in espalier.flow_runs.

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
    with _recorded(begun, flow) if flow else nullcontext(), interruptible():
        yield begun


@contextmanager
def _recorded(begun: FlowContext, flow: str) -> Iterator[None]:
    started, state, detail = datetime.now(UTC), "completed", ""
    try:
        yield
    except CheckRefused as error:
        state, detail = "refused", str(error)
        raise
    except Exception as error:
        state, detail = "failed", str(error)
        raise
    except BaseException:
        state = "cancelled"
        raise
    finally:
        # A database that is gone is the run's own error, if it has one, and no second one.
        with suppress(DependencyUnreachable):
            record_flow(
                begun.settings.dsn,
                project=begun.project.name,
                flow=flow,
                state=state,
                started_at=started,
                detail=detail,
            )
