"""One step of a flow: a Prefect task that is tried again when what went wrong can pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from espalier.errors import DependencyUnreachable, EspalierError

T = TypeVar("T")

# After so many seconds it is tried again: a server that restarts is back by then.
BACKOFF_SECONDS = (5.0, 20.0, 60.0)


def passing(error: BaseException | None) -> bool:
    """Whether the same work may succeed a little later.

    A service that does not answer may be back. What reads its reason otherwise, such as a batch
    that did not come within its time or a model that nobody trained yet, will not change by that.
    """
    return isinstance(error, DependencyUnreachable) and error.reason in _PASSING


_PASSING = (DependencyUnreachable.reason, "FEATURES_UNAVAILABLE")


def run(name: str, work: Callable[[], T]) -> T:
    """Do the work, in a Prefect flow run as its task.

    Runs that a deployment started are tried again; who stands at a shell hears of it at once. A
    step within a step is part of it.

    Args:
        name: The step's name in Prefect's UI.
        work: What is done; doing it twice must be as doing it once.

    Raises:
        EspalierError: what the work raises, at the last try.
    """
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.context import FlowRunContext, TaskRunContext

    running = FlowRunContext.get()
    if running is None or TaskRunContext.get() is not None:
        return work()
    deployed = running.flow_run is not None and (
        running.flow_run.deployment_id or running.flow_run.parent_task_run_id
    )
    backoff = list(BACKOFF_SECONDS) if deployed else []
    step: Any = task(
        name=name,
        retries=len(backoff),
        retry_delay_seconds=backoff,
        retry_condition_fn=_retried,
        cache_policy=NO_CACHE,
        persist_result=False,
    )(work)
    done: T = step()
    return done


def flow_run() -> str:
    """The Prefect flow run that this is, as a name; empty outside of one."""
    from prefect.context import FlowRunContext

    running = FlowRunContext.get()
    if running is None or running.flow_run is None:
        return ""
    return f"flow run {running.flow_run.id}"


def _retried(_task: Any, _run: Any, state: Any) -> bool:
    try:
        state.result(raise_on_failure=True)
    except EspalierError as error:
        return passing(error)
    except Exception:  # noqa: BLE001  # whatever it is, it is none of ours that passes
        return False
    return False
