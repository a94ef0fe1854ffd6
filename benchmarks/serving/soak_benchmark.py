"""A steady mixed load for minutes: no error may come, and the server's memory must stay flat.

./pants run benchmarks/serving/soak_benchmark.py -- --minutes 10

gRPC and HTTP, single entities, batches and streams, calls that are cancelled, and a new model every
half minute. Every answer is checked. It ends with 1 when there was an error, or when memory grew by
more than 5 % from the end of the first minute on.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import grpc
import httpx
import numpy as np

from espalier.postgres import embedded
from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from espalier.serving.testing import (
    ENTITIES,
    Registry,
    create_online_table,
    expected_score,
    running_registry,
    write_model,
)
from espalier.serving.testing_server import Running, serving
from measure import machine, markdown, megabytes, pss

_SLOPES = {"1": 0.01, "2": -0.01}
_SWAP_SECONDS = 30.0
_WARM_SECONDS = 60.0
_WINDOW = 10
_GROWTH = 0.05
_BATCH, _STREAM = 100, 20


class _Callers:
    """The kinds of calls, and what became of them."""

    def __init__(self, channel: grpc.aio.Channel, http: httpx.AsyncClient) -> None:
        self._stub, self._http = pb_grpc.PredictionServiceStub(channel), http
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    async def predict(self, number: int) -> None:
        entity = ENTITIES[number % len(ENTITIES)]
        _check(await self._stub.Predict(pb.PredictRequest(entity_id=entity), timeout=20), entity)

    async def batch(self, number: int) -> None:
        asked = [ENTITIES[(number + place) % len(ENTITIES)] for place in range(_BATCH)]
        answer = await self._stub.BatchPredict(pb.BatchPredictRequest(entity_ids=asked), timeout=20)
        for found, entity in zip(answer.predictions, asked, strict=True):
            _check(found, entity)

    async def stream(self, number: int) -> None:
        asked = [ENTITIES[(number + place) % len(ENTITIES)] for place in range(_STREAM)]
        requests = [pb.StreamPredictRequest(entity_id=entity) for entity in asked]
        call = self._stub.StreamPredict(iter(requests), timeout=20)
        answers = [answer.prediction async for answer in call]
        for found, entity in zip(answers, asked, strict=True):
            _check(found, entity)

    async def post(self, number: int) -> None:
        entity = ENTITIES[number % len(ENTITIES)]
        answer = await self._http.post("/predict", json={"user_id": entity})
        told = answer.raise_for_status().json()
        _check_score(told["user_id"], told["model"]["version"], told["score"], entity)

    async def cancel(self, number: int) -> None:
        call = self._stub.Predict(pb.PredictRequest(entity_id=ENTITIES[number % 300]), timeout=20)
        await asyncio.sleep((number % 5) / 1000)
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call

    async def at_rate(
        self, name: str, call: Callable[[int], Awaitable[None]], rate: float, end: float
    ) -> None:
        """Begin a call every 1/`rate` seconds, whether or not those before are answered."""
        loop = asyncio.get_running_loop()
        began, number, under_way = loop.time(), 0, set()
        while (due := began + number / rate) < end:
            await asyncio.sleep(max(0.0, due - loop.time()))
            task = loop.create_task(self._one(name, call, number))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            number += 1
        await asyncio.gather(*under_way)

    async def _one(self, name: str, call: Callable[[int], Awaitable[None]], number: int) -> None:
        try:
            await call(number)
        except Exception as error:  # noqa: BLE001  # any at all is the failure
            self.errors[f"{name}: {_told(error)}"] += 1
        else:
            self.counts[name] += 1


def main() -> int:
    """Run it and print what was seen; 1 when there was an error or growth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=100, help="calls a second, of all kinds")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        embedded.temporary() as database,
        running_registry() as registry,
    ):
        folder = Path(scratch)
        create_online_table(database.dsn())
        for version, slope in _SLOPES.items():
            write_model(folder / version, slope=slope)
        registry.publish("1", folder / "1")
        with serving(database.dsn(), registry.uri, folder) as running:
            running.until(running.is_ready)
            soak = _soak(running, registry, folder, options.minutes * 60, options.rate)
            callers, memory, swaps = asyncio.run(soak)
            restarted = running.process.poll()
            restarted_text = "" if restarted is None else f"the server ended with {restarted}"
    return _tell(callers, memory, swaps, [restarted_text] if restarted_text else [])


async def _soak(
    running: Running, registry: Registry, folder: Path, seconds: float, rate: float
) -> tuple[_Callers, list[int], int]:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    memory: list[int] = []
    swaps = 0

    async def sample() -> None:
        while loop.time() < end:
            memory.append(pss(running.process.pid))
            await asyncio.sleep(1)

    async def swap() -> None:
        nonlocal swaps
        while loop.time() + _SWAP_SECONDS / 2 < end:
            await asyncio.sleep(_SWAP_SECONDS / 2)
            swaps += 1
            version = "2" if swaps % 2 else "1"
            registry.publish(version, folder / version)
            await asyncio.sleep(_SWAP_SECONDS / 2)

    async with (
        grpc.aio.insecure_channel(running.grpc_address) as channel,
        httpx.AsyncClient(base_url=running.http.base_url, timeout=20) as http,
    ):
        callers = _Callers(channel, http)
        shares = {"predict": 0.5, "post": 0.25, "cancel": 0.15, "batch": 0.06, "stream": 0.04}
        await asyncio.gather(
            sample(),
            swap(),
            *(
                callers.at_rate(name, getattr(callers, name), rate * share, end)
                for name, share in shares.items()
            ),
        )
    return callers, memory, swaps


def _told(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return f"{type(error).__name__}: {error}"


def _check(found: pb.PredictResponse, entity: str) -> None:
    _check_score(found.entity_id, found.model.version, found.score, entity)


def _check_score(answered: str, version: str, score: float, entity: str) -> None:
    wanted = expected_score(entity, _SLOPES[version])
    if answered != entity or not math.isclose(score, wanted, abs_tol=1e-6):
        raise AssertionError(f"{entity} by version {version}: {answered} {score}, not {wanted}")


def _tell(callers: _Callers, memory: list[int], swaps: int, faults: list[str]) -> int:
    # A run of less than two minutes has half of it to get warm.
    warm = int(min(_WARM_SECONDS, len(memory) / 2))
    first = statistics.median(memory[max(0, warm - _WINDOW) : warm])
    last = statistics.median(memory[-_WINDOW:])
    growth = last / first - 1
    slope = float(np.polyfit(range(len(memory) - warm), memory[warm:], 1)[0]) * 60
    print(markdown(["calls", "right answers"], [[n, f"{c:,}"] for n, c in callers.counts.items()]))
    print(f"\nerrors {callers.errors.total():,}; models put into force {swaps}")
    print(
        f"memory after {warm} s {megabytes(first)}, at the end {megabytes(last)} ({growth:+.1%}), "
        f"most {megabytes(max(memory))}, slope {slope / 1e6:+.2f} MB a minute"
    )
    print(machine())
    faults += [f"{count:,} x {kind}" for kind, count in callers.errors.most_common(20)]
    if growth > _GROWTH:
        faults.append(f"memory grew by {growth:.1%}")
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
