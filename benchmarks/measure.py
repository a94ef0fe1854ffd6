"""What every benchmark needs: timed rounds, memory peaks, and a table that tells them.

The sides of a comparison take turns in one run, so that what else the machine does hits all of
them alike.

    timings = rounds({"ours": ours, "theirs": theirs}, 5)
    print(table(timings, rows=100_000, against="theirs"))
    print(machine())
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Timing(Generic[T]):
    """One side's seconds and results, one of each a round."""

    name: str
    seconds: tuple[float, ...]
    results: tuple[T, ...]

    @property
    def minimum(self) -> float:
        """The shortest round."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.seconds)

    @property
    def maximum(self) -> float:
        """The longest round."""
        return max(self.seconds)


def rounds(
    sides: Mapping[str, Callable[[], T]],
    n: int,
    *,
    prepare: Mapping[str, Callable[[], object]] | None = None,
    warm_up: int = 0,
    progress: bool = True,
) -> dict[str, Timing[T]]:
    """Time each side `n` times, the sides taking turns; the order turns round every round.

    Args:
        sides: What is timed, by name.
        n: How many rounds count.
        prepare: What is called before a side's every round and not timed, such as emptying tables.
        warm_up: Rounds before those, which do not count.
        progress: Whether each round is told on standard error.
    """
    if n < 1:
        raise ValueError(f"{n} rounds measure nothing")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    results: dict[str, list[T]] = {name: [] for name in sides}
    for number in range(-warm_up, n):
        order = list(sides)
        for name in order if number % 2 == 0 else reversed(order):
            if prepare is not None and name in prepare:
                prepare[name]()
            started = time.perf_counter()
            result = sides[name]()
            spent = time.perf_counter() - started
            if progress:
                told = "warm-up" if number < 0 else f"round {number + 1} of {n}"
                print(f"{told}: {name} {spent:.3f} s", file=sys.stderr)
            if number >= 0:
                seconds[name].append(spent)
                results[name].append(result)
    return {name: Timing(name, tuple(seconds[name]), tuple(results[name])) for name in sides}


def table(
    timings: Mapping[str, Timing[T]], *, rows: int | None = None, against: str | None = None
) -> str:
    """The timings in Markdown: a line for each side, with its median as a multiple of `against`.

    Args:
        timings: What `rounds` gave; parts of it, or of several runs put together.
        rows: How many rows each round handled: adds rows a second.
        against: The side that the others are compared with; the first unless named.
    """
    base = timings[against if against is not None else next(iter(timings))]
    header = ["side", "rounds", "min s", "median s", "max s", f"x {base.name}"]
    lines = []
    for name, one in timings.items():
        cells = [
            name,
            str(len(one.seconds)),
            *(f"{value:.3f}" for value in (one.minimum, one.median, one.maximum)),
            f"{one.median / base.median:.2f}",
        ]
        lines.append(cells if rows is None else [*cells, f"{rows / one.median:,.0f}"])
    return markdown(header if rows is None else [*header, "rows/s"], lines)


def markdown(header: list[str], lines: list[list[str]]) -> str:
    """A Markdown table whose first column is text and whose others are numbers."""
    return "\n".join(
        [
            f"| {' | '.join(header)} |",
            f"|---|{'---:|' * (len(header) - 1)}",
            *(f"| {' | '.join(cells)} |" for cells in lines),
        ]
    )


def spread(values: Sequence[float], form: str) -> list[str]:
    """The minimum, median and maximum as three cells, each by the format `form`."""
    return [format(f(values), form) for f in (min, statistics.median, max)]


def spread_header(name: str) -> list[str]:
    """The header of the cells of `spread`."""
    return [f"{name} min", "median", "max"]


def pss(pid: int) -> int:
    """Bytes of memory that a running process holds now, of shared pages its share; Linux alone.

    Raises:
        ProcessLookupError: it is not there.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError as error:
        raise ProcessLookupError(f"there is no process {pid}, or no /proc") from error
    (line,) = (line for line in text.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024


def peak_rss(*pids: int) -> int:
    """Bytes of memory that this process, or the named running ones together, held at most.

    A sum of peaks, which need not have been at one time: never too low. Pages that processes share
    count in each.

    Raises:
        ProcessLookupError: a named process is not there.
    """
    if pids:
        return sum(_peak_of(pid) for pid in pids)
    return _peak_of(os.getpid())


def reset_peak() -> None:
    """Begin this process's peak anew from what it holds now; only Linux can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise NotImplementedError("only Linux forgets a process's peak") from error


def megabytes(size: float) -> str:
    """Bytes as text in MB of a million bytes."""
    return f"{size / _MEGABYTE:,.0f} MB"


def machine() -> str:
    """One line that says where it was measured: processor, cores, memory, system, Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"{_processor()}, {_cores()} cores, {memory / 2**30:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def _peak_of(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError as error:
        if pid != os.getpid():
            raise ProcessLookupError(f"there is no process {pid}, or no /proc") from error
        # macOS counts bytes where Linux counts kilobytes.
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _cores() -> int:
    """The cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
