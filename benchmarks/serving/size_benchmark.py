"""What a server costs: its file, its start, its memory, and what a second worker brings.

./pants package src/python/churn:churn-server
./pants run benchmarks/serving/size_benchmark.py -- --server dist/churn-server.pex --rounds 5

Needs ghz on PATH, and Linux for memory. A start is from the command to the first prediction over
gRPC, so it includes the model's download and its checks; the first one of a PEX on a host unpacks it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from measure import machine, markdown, megabytes, pss, spread, spread_header
from serving import load, servers
from serving.load import PREDICT, Load
from serving.place import Place, prepared
from serving.servers import Side

_PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class _Round:
    """One start of a server: seconds to its first prediction, the load it bore, bytes at the end."""

    start: float
    load: Load
    parent: int
    workers: tuple[int, ...]

    @property
    def total(self) -> int:
        return self.parent + sum(self.workers)


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/seeds"), help="churn's batches")
    parser.add_argument("--server", type=Path, help="churn-server.pex; default: from source")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of each load")
    parser.add_argument("--callers", type=int, default=64)
    options = parser.parse_args()
    program = options.server and str(options.server.absolute())
    with (
        tempfile.TemporaryDirectory() as scratch,
        prepared(options.data.absolute(), Path(scratch)) as place,
    ):
        first = []
        found: dict[int, list[_Round]] = {many: [] for many in options.workers}
        for number in range(options.rounds):
            if program:
                with (
                    tempfile.TemporaryDirectory() as root,
                    _started(place, 1, program, root) as one,
                ):
                    first.append(one[1])
            order = options.workers if number % 2 == 0 else options.workers[::-1]
            for many in order:
                one_round = _round(place, many, program, scratch, options)
                found[many].append(one_round)
                print(f"round {number + 1}: {many} workers: {one_round}", file=sys.stderr)
        if program:
            print(f"{options.server.name}: {megabytes(_size(options.server))}\n")
        _tell(found, first)
        print(f"\n{options.callers} callers; {machine()}; {len(place.entities):,} customers online")


def _round(
    place: Place, workers: int, program: str | None, scratch: str, options: argparse.Namespace
) -> _Round:
    with _started(place, workers, program, f"{scratch}/pex") as (side, seconds):
        messages: list[dict[str, object]] = [{"entity_id": name} for name in place.entities[:2000]]
        load.grpc(side.grpc, PREDICT, messages, callers=options.callers, seconds=1)
        borne = load.grpc(
            side.grpc, PREDICT, messages, callers=options.callers, seconds=options.seconds
        )
        return _Round(seconds, borne, *_memory(side.grpc))


@contextmanager
def _started(
    place: Place, workers: int, program: str | None, pex_root: str
) -> Iterator[tuple[Side, float]]:
    """A server and the seconds until its first answer, all workers being ready.

    A PEX unpacks under `pex_root`.
    """
    began = time.perf_counter()
    with (
        servers.ours(
            place, f"--workers={workers}", program=program, environment={"PEX_ROOT": pex_root}
        ) as side,
        grpc.insecure_channel(side.grpc) as channel,
    ):
        # One that is not ready yet would refuse its share of what comes.
        side.process.wait_until(lambda: _ready(side, workers), seconds=_PATIENCE_SECONDS)
        request = pb.PredictRequest(entity_id=place.entities[0])
        pb_grpc.PredictionServiceStub(channel).Predict(request, timeout=10)
        yield side, time.perf_counter() - began


def _ready(side: Side, workers: int) -> bool:
    """Whether all workers are there and ready."""
    lines = httpx.get(f"{side.http}/metrics", timeout=5).text.splitlines()
    return f"espalier_workers {workers:.1f}" in lines and "espalier_ready 1.0" in lines


def _memory(address: str) -> tuple[int, tuple[int, ...]]:
    """Bytes of the process that was started to serve there, and of its workers; one alone is one."""
    commands = {
        int(path.parent.name): path.read_bytes().decode().split("\0")
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists()
    }
    # The guard around it is none of the server.
    serving = {
        pid: words
        for pid, words in commands.items()
        if address in words and not any(word.endswith("guard.py") for word in words)
    }
    workers = [pid for pid, words in serving.items() if "--worker-slot" in words]
    parents = [pid for pid in serving if pid not in workers]
    if not workers:
        return 0, tuple(map(pss, parents))
    return sum(map(pss, parents)), tuple(map(pss, workers))


def _size(program: Path) -> int:
    """Bytes of a PEX: a file, or a folder when it is not zipped."""
    files = [program] if program.is_file() else [p for p in program.rglob("*") if p.is_file()]
    return sum(path.stat().st_size for path in files)


def _tell(found: dict[int, list[_Round]], first: list[float]) -> None:
    starts = [
        [f"workers: {many}", *spread([r.start for r in rs], ".2f")] for many, rs in found.items()
    ]
    if first:
        starts.insert(0, ["workers: 1, the first time on a host", *spread(first, ".2f")])
    print(markdown(["until the first prediction", *spread_header("s")], starts))
    base = found[min(found)]
    lines = [
        [
            f"workers: {many}",
            *spread([r.load.rate for r in rs], ",.0f"),
            *spread([r.load.rate / b.load.rate for r, b in zip(rs, base, strict=True)], ".2f"),
            *spread([r.load.p99 for r in rs], ".1f"),
            str(sum(r.load.failed for r in rs)),
        ]
        for many, rs in found.items()
    ]
    header = ["throughput", *spread_header("answers/s"), *spread_header(f"x {min(found)}")]
    print("\n" + markdown([*header, *spread_header("p99 ms"), "failed"], lines))
    memory = [
        [
            f"workers: {many}",
            *spread([size / 1e6 for r in rs for size in r.workers], ".0f"),
            *spread([r.parent / 1e6 for r in rs], ".0f"),
            *spread([r.total / 1e6 for r in rs], ".0f"),
        ]
        for many, rs in found.items()
    ]
    header = ["memory after the load", *spread_header("MB a worker"), *spread_header("MB parent")]
    print("\n" + markdown([*header, *spread_header("MB in all")], memory))


if __name__ == "__main__":
    main()
