"""Puts the prediction server together, runs it, and drains it."""

from __future__ import annotations

import asyncio
import logging
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from espalier.errors import ConfigurationError
from espalier.prediction.v1 import prediction_pb2_grpc
from espalier.project import Project
from espalier.serving import reflection
from espalier.serving.core import Predictor
from espalier.serving.grpc_errors import ErrorInterceptor
from espalier.serving.grpc_service import SERVICE, PredictionService
from espalier.serving.listeners import bound, split
from espalier.serving.log import PredictionLog
from espalier.serving.metrics import Metrics
from espalier.serving.models import ModelKeeper
from espalier.serving.reader import WideRowReader
from espalier.serving.readiness import Readiness

_log = logging.getLogger(__name__)

# For answers on their way out, after the last prediction is made.
_STOP_SECONDS = 1
# For the last write of the prediction log.
_LOG_SECONDS = 5.0

HEALTH: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a server runs. `http_address` may be empty; a port may be 0 for a free one.

    `now` says what time it is, for the age of features; replaying history sets it to the past.
    """

    project: Project
    dsn: str
    tracking_uri: str
    grpc_address: str
    http_address: str
    poll_seconds: float = 5.0
    drain_seconds: float = 10.0
    workers: int = 2
    max_waiting: int = 4096
    log_predictions: bool = True
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        if not self.poll_seconds > 0:
            raise ConfigurationError(
                f"the registry cannot be asked every {self.poll_seconds:g} s",
                fix="set ESPALIER_MODEL_POLL_SECONDS to more than 0",
            )
        if not self.drain_seconds >= 0:
            raise ConfigurationError(
                f"draining cannot take {self.drain_seconds:g} s",
                fix="give --drain-seconds 0 or more",
            )


@dataclass(frozen=True)
class Addresses:
    """Where a server listens; `http` is empty without HTTP."""

    grpc: str
    http: str


async def serve(
    options: Options,
    *,
    ready: Callable[[Addresses], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is under way and return.

    Args:
        options: How to run.
        ready: Called each time the server becomes ready for predictions.

    Raises:
        ConfigurationError: an address is malformed or in use.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = Metrics()
    reader = WideRowReader(options.dsn, connections=options.workers + 1)
    log = PredictionLog(options.dsn, observer=metrics)
    predictor = Predictor(
        reader,
        name=options.project.name,
        observer=metrics,
        sink=log if options.log_predictions else None,
        clock=options.now,
        workers=options.workers,
        max_waiting=options.max_waiting,
    )
    metrics.watch_queue(lambda: predictor.waiting)
    with tempfile.TemporaryDirectory(prefix="espalier-models-") as folder:
        keeper = ModelKeeper(
            predictor,
            tracking_uri=options.tracking_uri,
            into=Path(folder),
            poll_seconds=options.poll_seconds,
            observer=metrics,
            on_change=lambda: readiness.check_soon(),  # noqa: PLW0108  # it is made below
        )
        readiness = Readiness(predictor, model_problem=lambda: keeper.problem)
        checker = health.aio.HealthServicer()
        grace = options.drain_seconds
        async with (
            _grpc(options.grpc_address, predictor, metrics, checker) as grpc_address,
            _http(options, predictor, readiness, metrics) as http_address,
        ):
            addresses = Addresses(grpc_address, http_address)
            _log.info("listening", extra={"grpc": addresses.grpc, "http": addresses.http})

            async def publish(*, is_ready: bool) -> None:
                metrics.ready(is_ready=is_ready)
                await _set_health(checker, is_ready=is_ready)
                _log.info("ready" if is_ready else "not ready")
                if is_ready and ready is not None:
                    ready(addresses)

            background = [
                loop.create_task(keeper.run()),
                loop.create_task(readiness.run(publish)),
                logging_task := loop.create_task(log.run()),
            ]
            try:
                await _first_of(stop, background)
            finally:
                _log.info("draining", extra={"seconds": grace})
                readiness.stop()
                metrics.ready(is_ready=False)
                await checker.enter_graceful_shutdown()
                for task in background:
                    if task is not logging_task:
                        task.cancel()
                # Predictions end before the transports do. A gRPC server that stops cancels calls
                # that it has not read yet; now they are read, and told to go elsewhere.
                await predictor.close(grace)
        log.close()
        await asyncio.wait([logging_task], timeout=_LOG_SECONDS)
        await reader.close()
    _log.info("stopped")


async def _first_of(stop: asyncio.Event, background: list[asyncio.Task[None]]) -> None:
    """Wait for `stop`; a background task that ends before, ends the server with its error."""
    waiter = asyncio.get_running_loop().create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([waiter, *background], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        waiter.cancel()


async def _set_health(checker: health.aio.HealthServicer, *, is_ready: bool) -> None:
    status = health_pb2.HealthCheckResponse
    for service in ("", SERVICE):
        await checker.set(service, status.SERVING if is_ready else status.NOT_SERVING)


@asynccontextmanager
async def _grpc(
    address: str,
    predictor: Predictor,
    metrics: Metrics,
    checker: health.aio.HealthServicer,
) -> AsyncIterator[str]:
    """A gRPC server in this loop; gives its address."""
    host, port = split(address)
    server = grpc.aio.server(
        interceptors=[ErrorInterceptor(SERVICE, metrics)],
        # Without it a second server would share the port, and take half of the first one's calls.
        options=[("grpc.so_reuseport", 0)],
    )
    prediction_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(predictor), server
    )
    await _set_health(checker, is_ready=False)
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    reflection.add(server, [SERVICE, HEALTH])
    # gRPC reports every failure to bind alike, so the system is asked for the reason first.
    with bound(host, port, "gRPC"):
        pass
    try:
        chosen = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise ConfigurationError(f"gRPC cannot listen on {address}") from error
    await server.start()
    try:
        yield f"{host}:{chosen}"
    finally:
        await server.stop(_STOP_SECONDS)


@asynccontextmanager
async def _http(
    options: Options, predictor: Predictor, readiness: Readiness, metrics: Metrics
) -> AsyncIterator[str]:
    """An HTTP server in this loop; gives its address."""
    if not options.http_address:
        yield ""
        return
    # A server of gRPC alone does without FastAPI.
    import uvicorn

    from espalier.serving.http_service import create_app

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            # Both transports stop together, by our handlers.
            yield

    host, port = split(options.http_address)
    with bound(host, port, "HTTP") as listener:
        config = uvicorn.Config(
            create_app(options.project, predictor, readiness, metrics),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        server = Server(config)
        running = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
        try:
            yield f"{host}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running
