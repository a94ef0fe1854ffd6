"""Metrics of several worker processes on one page.

Each worker keeps its numbers in memory-mapped files, and any of them answers a scrape with the sum
over all files: what a worker counted is not lost when it dies, even by SIGKILL, and histograms add
up bucket by bucket. (A parent that asked its workers at each scrape would lose what they counted
since the last one.) The files are named by the worker's slot and not by its process id, as is the
library's habit, so that a worker that is restarted goes on counting in its predecessor's files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector


def share(folder: Path, slot: str) -> None:
    """Keep all metrics that this process makes from now on in `folder`, as those of `slot`.

    Args:
        folder: The folder that the workers share, empty when the first one starts.
        slot: A name without underscores, of one running process at a time.
    """
    # The library asks for it by this variable alone.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: slot)


def keep_alone() -> None:
    """Keep all metrics that this process makes from now on in memory, whatever its parent did.

    A parent that imports Feast hands the library's variable on, and the numbers would go to files.
    """
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)
    values.ValueClass = values.MutexValue


def forget_gauges(folder: Path, slot: str) -> None:
    """Drop what a dead worker said of the present; what it counted stays."""
    mark_process_dead(slot, str(folder))


def merged(folder: Path) -> CollectorRegistry:
    """A registry that sums over the files of `folder`."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return registry


class WithoutZeros(Collector):
    """Another registry's metrics, without samples of 0 in those named.

    An info metric's labels cannot be taken back in shared files, only be set to 0.
    """

    def __init__(self, inner: CollectorRegistry, *names: str) -> None:
        """Leave out zeros of the metrics `names`."""
        self._inner, self._names = inner, names

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        for metric in self._inner.collect():
            if metric.name in self._names:
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric
