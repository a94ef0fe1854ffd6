"""Runs the parts of a job on Dask: on this machine's threads or processes, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import delayed

from espalier.errors import ConfigurationError, DependencyUnreachable
from espalier.scoring.plan import Part
from espalier.scoring.work import Job, score_part

LOCAL = ("threads", "processes", "synchronous")
_CONNECT_SECONDS = 5


def run(
    job: Job,
    parts: Sequence[Part],
    *,
    scheduler: Any,
    workers: int | None = None,
    done: Callable[[int], None],
) -> None:
    """Score every part; `done` hears of each one's rows.

    Args:
        job: What all parts share.
        parts: What is to be scored.
        scheduler: One of `LOCAL`, the address of a Dask cluster's scheduler, or a client of one.
        workers: How many threads or processes of this machine; None: as many as cores.
        done: Called in this process after each part.

    Raises:
        ConfigurationError: `scheduler` is none.
        DependencyUnreachable: the cluster does not answer, or its workers die at the work.
        And what `score_part` raises; parts that are done by then stay.
    """
    if not isinstance(scheduler, str):
        _on_cluster(scheduler, job, parts, done)
    elif scheduler in LOCAL:
        _here(scheduler, workers, job, parts, done)
    elif "://" in scheduler:
        _at(scheduler, job, parts, done)
    else:
        raise ConfigurationError(
            f"{scheduler!r} is no scheduler",
            fix=f"give {', '.join(LOCAL)}, or a cluster's address as tcp://HOST:8786",
        )


def _here(
    scheduler: str,
    workers: int | None,
    job: Job,
    parts: Sequence[Part],
    done: Callable[[int], None],
) -> None:
    def tell(_key: Any, result: Any, *_state: Any) -> None:
        # The job itself is a task as well.
        if isinstance(result, int):
            done(result)

    shared = delayed(job, pure=False, traverse=False)
    one = delayed(score_part, pure=False)
    with Callback(posttask=tell):
        compute(*[one(shared, part) for part in parts], scheduler=scheduler, num_workers=workers)


def _at(address: str, job: Job, parts: Sequence[Part], done: Callable[[int], None]) -> None:
    from distributed import Client

    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise DependencyUnreachable(
            f"Dask's scheduler at {address} does not answer: {error}",
            fix="start one with: dask scheduler, and workers with: dask worker ADDRESS",
        ) from error
    with client:
        _on_cluster(client, job, parts, done)


def _on_cluster(client: Any, job: Job, parts: Sequence[Part], done: Callable[[int], None]) -> None:
    """A part whose worker died goes to another one; its sink makes sure that it is there once."""
    from distributed import KilledWorker, as_completed
    from distributed.client import FutureCancelledError

    # By reference: the model goes to each worker once, and not with each part.
    shared = client.scatter(job, broadcast=True, hash=False)
    futures = client.map(score_part, [shared] * len(parts), list(parts), pure=False)
    try:
        for _, rows in as_completed(futures, with_results=True, loop=client.loop):
            done(rows)
    except KilledWorker as error:
        raise DependencyUnreachable(
            f"workers of the Dask cluster died at the work: {error}",
            fix="see their logs; memory is the usual cause, and more partitions need less of it",
        ) from error
    except FutureCancelledError as error:
        raise DependencyUnreachable(f"the Dask cluster was lost: {error}") from error
    finally:
        client.cancel(futures)
