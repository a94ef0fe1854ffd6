"""Puts the prediction server together, runs it, and drains it."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2_grpc

from espalier.contract import ColumnType
from espalier.errors import ConfigurationError
from espalier.prediction.v1 import prediction_pb2_grpc
from espalier.serving import health, open_inference, promotions, reflection
from espalier.serving.access import Access
from espalier.serving.grpc_errors import CallInterceptor
from espalier.serving.grpc_server import GrpcServer
from espalier.serving.grpc_service import SERVICE, PredictionService
from espalier.serving.listeners import allow_connections, bound, split
from espalier.serving.log import PredictionLog
from espalier.serving.metrics import Metrics
from espalier.serving.open_inference import InferenceService
from espalier.serving.options import Addresses, Options
from espalier.serving.product import assemble
from espalier.serving.reader import ClosableReader, WideRowReader
from espalier.serving.readiness import ServerReadiness
from espalier.serving.routing import Product, predicting, scoring
from espalier.serving.shared_metrics import keep_alone, share
from espalier.serving.tls import keep_current
from espalier.serving.tokens import TokenFile
from inference import open_inference_pb2_grpc

if TYPE_CHECKING:
    from espalier.serving.tracing import Tracing

_log = logging.getLogger(__name__)

# For answers on their way out, after the last prediction is made.
_STOP_SECONDS = 1
# For gRPC's calls on their way in, and its word to clients that it stops on its way out.
# At most so often, as long as more come.
_HOLD_SECONDS, _HOLDS = 0.1, 5
# For the last write of the prediction log, and for the last spans.
_LOG_SECONDS = 5.0
# Bounds on what clients may hold open: calls in all, calls a connection, headers of a call.
_MAX_CALLS, _MAX_CALLS_A_CONNECTION, _MAX_METADATA_BYTES = 10_000, 1_000, 16_384
# For a connection's first bytes, TLS included.
_HANDSHAKE_MS = 10_000


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
    worker = options.worker
    if worker is None:
        keep_alone()
    else:
        share(worker.metrics, worker.slot)
        # The parent holds the other end and never writes: what is there to read is its end.
        loop.add_reader(worker.lifeline, stop.set)
    metrics, access, tracing = _observed(options)
    readers = _readers(options)
    log = PredictionLog(
        options.dsn,
        sample=options.log_sample,
        retention_days=options.log_retention_days,
        clock=options.now,
        observer=metrics,
    )
    with tempfile.TemporaryDirectory(prefix="espalier-models-") as folder:
        running = [
            assemble(
                project,
                options,
                reader=readers[project.name],
                log=log if options.log_predictions else None,
                tracing=tracing,
                metrics=metrics.of(project.name),
                into=Path(folder),
            )
            for project in options.projects
        ]
        products = [one.product for one in running]
        readiness = ServerReadiness({product.name: product.readiness for product in products})
        told = health.Health([product.name for product in products])
        services = _services(products, readiness)
        async with (
            _grpc(options, services, metrics, access, told) as grpc_address,
            _http(options, products, readiness, metrics, access) as (http_address, drain_http),
        ):
            addresses = Addresses(grpc_address, http_address)
            _log.info("listening", extra={"grpc": addresses.grpc, "http": addresses.http})

            def say_ready() -> None:
                if ready is not None:
                    ready(addresses)

            promoted = {one.product.name: one.keeper.promoted for one in running}
            background = [
                *(loop.create_task(work) for one in running for work in one.work()),
                loop.create_task(readiness.run(_publisher(told, metrics, say_ready))),
                logging_task := loop.create_task(log.run()),
                loop.create_task(_sample(metrics)),
                loop.create_task(promotions.listen(options.dsn, promoted)),
            ]
            try:
                await _first_of(stop, background)
            finally:
                _log.info("draining", extra={"seconds": options.drain_seconds})
                readiness.stop()
                metrics.stop()
                drain_http()
                await told.stop()
                for task in background:
                    if task is not logging_task:
                        task.cancel()
                # Predictions end before the transports do. A gRPC server that stops cancels calls
                # that it has not read yet; now they are read, and told to go elsewhere.
                await asyncio.gather(
                    *(
                        part.close(options.drain_seconds)
                        for product in products
                        for part in (product.predictor, product.scorer)
                    )
                )
        log.close()
        await asyncio.wait([logging_task], timeout=_LOG_SECONDS)
        await _close(readers.values(), tracing)
        if worker is not None:
            loop.remove_reader(worker.lifeline)
    _log.info("stopped")


def _readers(options: Options) -> Mapping[str, ClosableReader]:
    """Where each product's features come from."""
    # One more for the readiness check, and one for large requests.
    connections = options.workers + 2
    if options.feature_repo is None:
        # As many for each product, so that one whose reads hang does not hold up the others.
        shared = WideRowReader(options.dsn, connections=connections * len(options.projects))
        return {project.name: shared for project in options.projects}
    # By name, so that no import leads from the server to Feast.
    module = import_module("espalier.serving.feast_reader")
    return {
        project.name: module.FeastReader(
            options.feature_repo,
            connections=connections,
            integer_keys=project.key_type is ColumnType.INTEGER,
        )
        for project in options.projects
    }


def _observed(options: Options) -> tuple[Metrics, Access, Tracing | None]:
    shared = None if options.worker is None else options.worker.metrics
    tokens = None if options.tokens is None else TokenFile(options.tokens)
    if not options.otlp_endpoint:
        return Metrics(shared), Access(tokens=tokens, rate=options.rate), None
    # OpenTelemetry is loaded only where its collector is.
    from espalier.serving.tracing import Tracing

    tracing = Tracing(options.otlp_endpoint, service=options.program)
    access = Access(tokens=tokens, rate=options.rate, begin=tracing.begin)
    return tracing.metrics(shared), access, tracing


async def _close(readers: Iterable[ClosableReader], tracing: Tracing | None) -> None:
    # Products may share one.
    for reader in set(readers):
        await reader.close()
    if tracing is not None:
        await asyncio.to_thread(tracing.close, _LOG_SECONDS)


def _publisher(
    told: health.Health, metrics: Metrics, say_ready: Callable[[], None]
) -> Callable[[str, bool], Awaitable[None]]:
    """What a change of a model's readiness, or of the whole server's, is told to."""

    async def publish(model: str, is_ready: bool) -> None:  # noqa: FBT001  # see `run`
        if is_ready:
            _spare_what_stays()
        await told.set(model, is_ready=is_ready)
        if model:
            metrics.of(model).ready(is_ready=is_ready)
            return
        metrics.ready(is_ready=is_ready)
        _log.info("ready" if is_ready else "not ready")
        if is_ready:
            say_ready()

    return publish


def _spare_what_stays() -> None:
    """Have the garbage collector pass over what was loaded, once.

    A full collection goes through all modules and models, and no request is answered meanwhile: of
    64 callers over HTTP one in a hundred waited 84 ms, and 40 without.
    """
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


async def _sample(metrics: Metrics) -> None:
    while True:
        metrics.sample()
        await asyncio.sleep(1)


async def _first_of(stop: asyncio.Event, background: list[asyncio.Task[None]]) -> None:
    """Wait for `stop`; a background task that ends before, ends the server with its error."""
    waiter = asyncio.get_running_loop().create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([waiter, *background], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        waiter.cancel()


@dataclass(frozen=True)
class _Services:
    prediction: PredictionService
    inference: InferenceService


def _services(products: Sequence[Product], readiness: ServerReadiness) -> _Services:
    predictor, scorer = predicting(products), scoring(products)
    return _Services(
        PredictionService(predictor),
        InferenceService(predictor, scorer, missing=readiness.missing),
    )


@asynccontextmanager
async def _grpc(
    options: Options,
    services: _Services,
    metrics: Metrics,
    access: Access,
    told: health.Health,
) -> AsyncIterator[str]:
    """A gRPC server in this loop; gives its address."""
    host, port = split(options.grpc_address)
    credentials = None if options.tls is None else options.tls.grpc_credentials()
    interceptor = CallInterceptor([SERVICE, open_inference.SERVICE], metrics, access)
    server = GrpcServer(
        interceptors=[interceptor],
        maximum_concurrent_rpcs=_MAX_CALLS,
        options=[
            # Without sharing, a second server would take half of the first one's calls.
            ("grpc.so_reuseport", int(options.worker is not None)),
            ("grpc.max_receive_message_length", options.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_allowed_incoming_connections", allow_connections()),
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
            ("grpc.http2.settings_timeout", _HANDSHAKE_MS),
            ("grpc.max_concurrent_streams", _MAX_CALLS_A_CONNECTION),
            ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
            # A client that is gone without a word is found out, and one that asks too often is cut.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ],
    )
    prediction_pb2_grpc.add_PredictionServiceServicer_to_server(services.prediction, server)
    open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(services.inference, server)
    await told.start()
    health_pb2_grpc.add_HealthServicer_to_server(told.servicer, server)
    reflection.add(server, [SERVICE, open_inference.SERVICE, health.SERVICE])
    # gRPC reports every failure to bind alike, so the system is asked for the reason first.
    with bound(host, port, "gRPC", shared=options.worker is not None, listen=False):
        pass
    try:
        if credentials is None:
            chosen = server.add_insecure_port(f"{host}:{port}")
        else:
            chosen = server.add_secure_port(f"{host}:{port}", credentials)
    except RuntimeError as error:
        raise ConfigurationError(f"gRPC cannot listen on {options.grpc_address}") from error
    await server.start()
    try:
        yield f"{host}:{chosen}"
    finally:
        refuse = interceptor.hold()
        for _ in range(_HOLDS):
            held = interceptor.held
            await asyncio.sleep(_HOLD_SECONDS)
            if interceptor.held == held:
                break
        stopping = asyncio.create_task(server.stop(_STOP_SECONDS))
        # Clients are told to leave before those held are refused: they do not come back.
        await asyncio.sleep(_HOLD_SECONDS / 2)
        refuse()
        await stopping


@asynccontextmanager
async def _http(
    options: Options,
    products: Sequence[Product],
    readiness: ServerReadiness,
    metrics: Metrics,
    access: Access,
) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """An HTTP server in this loop; gives its address, and what has its clients leave."""
    if not options.http_address:
        yield "", lambda: None
        return
    # A server of gRPC alone does without FastAPI.
    from espalier.serving.http_server import HttpServer
    from espalier.serving.http_service import create_app

    host, port = split(options.http_address)
    app = create_app(products, readiness, metrics, access)
    context = None if options.tls is None else options.tls.context()
    with bound(host, port, "HTTP", shared=options.worker is not None) as listener:
        chosen = listener.getsockname()[1]
        server = HttpServer(app, max_connections=allow_connections(), context=context)
        await server.start(listener)
        renewing: asyncio.Task[None] | None = None
        if options.tls is not None and context is not None:
            renewing = asyncio.create_task(keep_current(options.tls, context))
        try:
            yield f"{host}:{chosen}", server.drain
        finally:
            if renewing is not None:
                renewing.cancel()
            await server.stop(_STOP_SECONDS)
