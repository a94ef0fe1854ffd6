"""Load for tests: callers over gRPC and HTTP that never stop, and what became of their calls.

    with under_load(running) as load:
        load.until_served(100)
        before = load.counts()
        ...                                  # the fault
        load.until(lambda: load.since(before).refused["UNAVAILABLE"] > 100)
        ...                                  # the fault's end
        load.until_served(100)
    assert load.counts().lost == ()
    load.tell("the database hangs")          # a line for the table of faults

The callers live in a thread with an event loop of its own, so a test goes on beside them. Each
answer is checked: the entity that was asked, and the score that the model's version gives it.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import grpc
import httpx
import uvloop
from google.protobuf.message import Message

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from espalier.serving.testing import ENTITIES, expected_score
from espalier.serving.testing_server import Running

# After a refusal a caller waits a moment, as no client comes back at once.
_PAUSE_SECONDS = 0.005
# What gRPC says of a call that never left, as there was nobody to connect to.
_NOT_SENT = "failed to connect to all addresses"
_STATUS_DETAILS = "grpc-status-details-bin"
_TOLD = [f"espalier_predictions_{how}_total" for how in ("logged", "not_logged", "not_sampled")]


@dataclass(frozen=True)
class Counts:
    """What became of the calls that have ended.

    `served`: right answers. `refused`: the server's own clear errors, by gRPC code, or as
    `HTTP 503`; a deadline that passed is one too, whoever noticed it first. `unreachable`: calls
    that nobody accepted, as nobody listened. `lost`: a line for each call that got a wrong answer,
    none, a broken connection, or an error without a reason of ours. `slowest`: the longest call,
    seconds. `at`: when it was counted, on the monotonic clock.
    """

    served: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unreachable: int = 0
    lost: tuple[str, ...] = ()
    slowest: float = 0.0
    at: float = 0.0


class Load:
    """Callers at work; see the module. Made by `under_load`."""

    def __init__(
        self,
        running: Running,
        *,
        batch_size: int,
        timeout: float,
        slopes: Mapping[str, float],
        model: str,
    ) -> None:
        """Make callers of `running` that do not call yet; see `under_load` for the arguments."""
        self._model = model
        self._running, self._described = running, "none"
        self._batch_size, self._timeout, self._slopes = batch_size, timeout, slopes
        self._lock = threading.Lock()
        self._served, self._unreachable, self._slowest = 0, 0, 0.0
        # When each refused call began, and its code.
        self._refused: list[tuple[float, str]] = []
        self._lost: list[str] = []
        self._over = threading.Event()

    def counts(self, began: float = 0.0) -> Counts:
        """What became of all calls so far; of the refused, those that began then or later."""
        with self._lock:
            return Counts(
                self._served,
                Counter(code for at, code in self._refused if at >= began),
                self._unreachable,
                tuple(self._lost),
                self._slowest,
                time.monotonic(),
            )

    def since(self, before: Counts) -> Counts:
        """What became of the calls that ended after `before` was counted.

        Of the refused those that began after it too, for a refusal may be under way just then.
        """
        now = self.counts(before.at)
        return replace(
            now,
            served=now.served - before.served,
            unreachable=now.unreachable - before.unreachable,
            lost=now.lost[len(before.lost) :],
        )

    def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        """Wait until `condition()` is true while the load goes on; fail when it takes long."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self._running.process.poll() is None, self._running.log.read_text()
            assert time.monotonic() < deadline, f"{self}\n{self._running.log.read_text()}"
            time.sleep(0.02)

    def until_served(self, calls: int, seconds: float = 60) -> None:
        """Wait until so many more calls were served."""
        before = self.counts()
        self.until(lambda: self.since(before).served >= calls, seconds)

    def __str__(self) -> str:
        """The counts, with some of what was lost."""
        now = self.counts()
        return str(replace(now, lost=tuple(set(now.lost[:20]))))

    def tell(self, fault: str) -> None:
        """Print the line `fault | load | served | refused | lost` (pytest shows it with -rP)."""
        now = self.counts()
        refused = ", ".join(f"{code} {n}" for code, n in sorted(now.refused.items())) or "0"
        unreachable = f" (unreachable {now.unreachable})" if now.unreachable else ""
        print(
            f"| {fault} | {self._described} | {now.served} | {refused}{unreachable} "
            f"| {len(now.lost)} |"
        )

    def stop(self) -> None:
        """Have the callers end after the call that they are at."""
        self._over.set()

    async def drive(self, grpc_callers: int, batch_callers: int, http_callers: int) -> None:
        """Call, until `stop`."""
        self._described = (
            f"{grpc_callers} Predict, {batch_callers} BatchPredict of {self._batch_size}, "
            f"{http_callers} HTTP"
        )
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(
                # The server's own limit is shorter; one that does not answer then has lost it.
                httpx.AsyncClient(base_url=self._running.http.base_url, timeout=30)
            )
            calls: list[Coroutine[Any, Any, None]] = []
            for number in range(grpc_callers + batch_callers):
                channel = await stack.enter_async_context(
                    # A connection each, so that several workers all get some.
                    grpc.aio.insecure_channel(
                        self._running.grpc_address,
                        options=[
                            ("grpc.use_local_subchannel_pool", 1),
                            ("grpc.max_reconnect_backoff_ms", 200),
                        ],
                    )
                )
                stub = pb_grpc.PredictionServiceStub(channel)
                ask = self._predict if number < grpc_callers else self._batch
                calls.append(self._call_on(ask, stub, number))
            calls += [self._call_on(self._post, http, number) for number in range(http_callers)]
            await asyncio.gather(*calls)

    async def _call_on(
        self, ask: Callable[[Any, int], Coroutine[Any, Any, str]], to: Any, first: int
    ) -> None:
        """One caller: call after call until the load is over."""
        for number in count(first * 7):
            if self._over.is_set():
                return
            began = time.monotonic()
            try:
                refused = await ask(to, number)
            except Exception as error:  # noqa: BLE001  # whatever it is, the call is lost
                self._note(lost=_described(error), began=began)
                refused = "lost"
            else:
                self._note(refused=refused, began=began)
            if refused:
                await asyncio.sleep(_PAUSE_SECONDS)

    def _note(self, *, began: float, refused: str = "", lost: str = "") -> None:
        with self._lock:
            self._slowest = max(self._slowest, time.monotonic() - began)
            if lost:
                self._lost.append(lost)
            elif refused == "unreachable":
                self._unreachable += 1
            elif refused:
                self._refused.append((began, refused))
            else:
                self._served += 1

    async def _predict(self, stub: Any, number: int) -> str:
        entity = ENTITIES[number % len(ENTITIES)]
        try:
            request = pb.PredictRequest(model=self._model, entity_id=entity)
            answer = await stub.Predict(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            return _refusal(error)
        self._check(answer, entity)
        return ""

    async def _batch(self, stub: Any, number: int) -> str:
        asked = [ENTITIES[(number + place) % len(ENTITIES)] for place in range(self._batch_size)]
        try:
            answer = await stub.BatchPredict(
                pb.BatchPredictRequest(model=self._model, entity_ids=asked), timeout=self._timeout
            )
        except grpc.aio.AioRpcError as error:
            return _refusal(error)
        for found, entity in zip(answer.predictions, asked, strict=True):
            self._check(found, entity)
        assert len({p.model.version for p in answer.predictions}) == 1, "versions are mixed"
        return ""

    async def _post(self, http: httpx.AsyncClient, number: int) -> str:
        entity = ENTITIES[number % len(ENTITIES)]
        try:
            answer = await http.post("/predict", json={"user_id": entity, "model": self._model})
        except httpx.ConnectError:
            return "unreachable"
        told = answer.json()
        if answer.is_error:
            assert told["reason"], "an error says why"
            return f"HTTP {answer.status_code}"
        self._check_score(told["user_id"], entity, told["model"]["version"], told["score"])
        return ""

    def _check(self, answer: Message, entity: str) -> None:
        assert isinstance(answer, pb.PredictResponse)
        assert answer.status == pb.ENTITY_STATUS_OK
        self._check_score(answer.entity_id, entity, answer.model.version, answer.score)

    def _check_score(self, answered: str, entity: str, version: str, score: float) -> None:
        assert answered == entity, f"{entity} was asked, {answered} answered"
        wanted = expected_score(entity, self._slopes[version])
        assert math.isclose(score, wanted, abs_tol=1e-6), f"{entity}: {score} for {wanted}"


def _described(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"[:200]
    return f"{type(error).__name__}: {error}"[:200]


def unaccounted(running: Running) -> float:
    """Served rows of which the prediction log does not say yet what became of them.

    served - logged - dropped - not sampled: what waits in the log's queue, and 0 in the end.
    """
    served = told = 0.0
    for line in running.http.get("/metrics").text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("espalier_predictions_total{") and 'source="MODEL"' in name:
            served += float(value)
        elif name in _TOLD:
            told += float(value)
    return served - told


def _refusal(error: grpc.aio.AioRpcError) -> str:
    """The code of a refusal; raises `error` when the server did not say it."""
    code: str = error.code().name
    told = {key for key, _ in error.trailing_metadata() or ()}
    if _STATUS_DETAILS in told or code == "DEADLINE_EXCEEDED":
        return code
    if code == "UNAVAILABLE" and _NOT_SENT in str(error.details()):
        return "unreachable"
    raise error


@contextmanager
def under_load(
    running: Running,
    *,
    grpc_callers: int = 12,
    batch_callers: int = 2,
    http_callers: int = 4,
    batch_size: int = 40,
    timeout: float = 5.0,
    slopes: Mapping[str, float] | None = None,
    model: str = "",
) -> Iterator[Load]:
    """Call `running` until the block ends; then wait for the answers that are still due.

    Args:
        running: The server; it need not be ready, or listen, when the load begins.
        grpc_callers: How many call `Predict`, one call after the other, on a connection each.
        batch_callers: How many call `BatchPredict`.
        http_callers: How many call `POST /predict`.
        batch_size: How many entities a `BatchPredict` asks for.
        timeout: The deadline of a gRPC call, seconds; HTTP has the server's own of 10 s.
        slopes: The slope of each model version that may answer; version 1's by default.
        model: The name that each request gives; churn's is asked for.
    """
    load = Load(
        running,
        batch_size=batch_size,
        timeout=timeout,
        slopes=slopes or {"1": 0.01},
        model=model,
    )
    failures: list[BaseException] = []

    def drive() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(load.drive(grpc_callers, batch_callers, http_callers))
        except BaseException as error:  # noqa: BLE001  # told by the test's own thread
            failures.append(error)

    thread = threading.Thread(target=drive)
    thread.start()
    try:
        yield load
    finally:
        load.stop()
        thread.join()
    if failures:
        raise failures[0]
