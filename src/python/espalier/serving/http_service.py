"""HTTP: the same predictor as JSON, for callers without gRPC, and the server's probes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from espalier.errors import EspalierError, InvalidRequest, Unauthenticated
from espalier.serving import http_models, http_page
from espalier.serving.access import Access
from espalier.serving.caller import CURRENT, REQUEST_ID, TRACEPARENT, Caller
from espalier.serving.metrics import Metrics
from espalier.serving.readiness import ServerReadiness
from espalier.serving.refusals import refusal
from espalier.serving.routing import Predicts, Product, predicting

TRANSPORT = "http"
MAX_BODY_BYTES = 16_384

_SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]

# Open to all: probes, which tell yes or no, and what describes the interface.
_OPEN = frozenset({"/health", "/ready", "/docs", "/openapi.json", "/"})

_STATUS = {
    "UNAUTHENTICATED": 401,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def create_app(
    products: Sequence[Product],
    readiness: ServerReadiness,
    metrics: Metrics,
    access: Access | None = None,
    *,
    timeout: float = 10.0,
) -> FastAPI:
    """The ASGI application; a prediction that takes more than `timeout` seconds is a 504.

    `/docs` is FastAPI's page, which a browser completes from a public CDN; `/openapi.json` needs
    nothing from outside.
    """
    access = access or Access()
    app = FastAPI(
        title=f"{' and '.join(product.name for product in products)} predictions",
        description=" ".join(product.project.description for product in products),
    )

    def admitted() -> None:
        caller = CURRENT.get()
        assert caller is not None, "set by the middleware"
        access.spend(caller, 1)

    counted = http_models.add(app, products, admitted=admitted, timeout=timeout)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process is alive."""
        return {"status": "alive"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """Whether predictions of each model can be answered now; 503 when not.

        What is missing is told to those who may call; it names hosts and tables.
        """
        missing = await readiness.missing()
        body: dict[str, object] = {"ready": not missing}
        if not access.guarded or CURRENT.get() is not None:
            body["missing"] = missing
        return JSONResponse(body, status_code=503 if missing else 200)

    @app.get("/metrics")
    async def scrape() -> Response:
        """Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    http_page.add(app)
    _add_error_handlers(app, predicting(products))
    app.add_middleware(_Guarded, metrics=metrics, access=access, counted=counted)
    return app


def _add_error_handlers(app: FastAPI, predictor: Predicts) -> None:
    @app.exception_handler(EspalierError)
    async def ours(request: Request, error: EspalierError) -> JSONResponse:
        return _refused(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if (refused := http_models.misnamed(predictor, first)) is not None:
            return _refused(refused, request.url.path)
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
        return _json(422, InvalidRequest.reason, f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def not_here(request: Request, error: HTTPException) -> JSONResponse:
        reason = {404: "NO_SUCH_PATH", 405: "METHOD_NOT_ALLOWED"}.get(
            error.status_code, InvalidRequest.reason
        )
        message = f"{request.method} {request.url.path}: {error.detail}"
        return _json(error.status_code, reason, message)


def _refused(error: Exception, path: str) -> JSONResponse:
    """The answer to a request that ended with `error`."""
    told = refusal(error, path)
    headers = {}
    if told.retry_seconds is not None:
        headers["Retry-After"] = str(math.ceil(told.retry_seconds))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return _json(_STATUS.get(told.code, 500), told.reason, told.message, headers)


def _json(
    status: int, reason: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"reason": reason, "message": message}, status, headers)


class _Exchange:
    """One request and its answer: bounds the body, and adds to the answer's head."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._size = 0
        self.status, self.request_id = 0, b""

    async def receive(self) -> Message:
        """A part of the request."""
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body has more than {MAX_BODY_BYTES} bytes")
        return message

    async def send(self, message: Message) -> None:
        """A part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [(REQUEST_ID.encode(), self.request_id)] if self.request_id else []
            message["headers"] = [*message.get("headers", ()), *_SECURITY_HEADERS, *own]
        await self._send(message)


class _Guarded:
    """ASGI middleware around every request: who calls, what it counts, and its bounds.

    It also keeps surprises from clients.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, access: Access, counted: Mapping[str, str]
    ) -> None:
        self._app, self._metrics, self._access = app, metrics, access
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, exchange = scope["path"], _Exchange(receive, send)
        method = self._counted.get(path)
        if method is None:
            await self._answer(scope, exchange)
            return
        start = time.perf_counter()
        self._metrics.started(TRANSPORT)
        try:
            await self._answer(scope, exchange)
        finally:
            # 499: the caller left before the answer, by nginx' custom.
            seconds, code = time.perf_counter() - start, str(exchange.status or 499)
            self._metrics.finished(TRANSPORT, method, code, seconds)

    async def _answer(self, scope: Scope, exchange: _Exchange) -> None:
        path: str = scope["path"]
        try:
            CURRENT.set(None)
            try:
                caller = self._admit(scope)
            except Unauthenticated as error:
                if path not in _OPEN:
                    await _refused(error, path)(scope, exchange.receive, exchange.send)
                    return
            else:
                CURRENT.set(caller)
                exchange.request_id = caller.request_id.encode()
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # noqa: BLE001  # logged; its text is not for callers
            answer = _refused(error, path)
            if not exchange.status:
                await answer(scope, exchange.receive, exchange.send)

    def _admit(self, scope: Scope) -> Caller:
        given = {name: value.decode("latin-1") for name, value in scope["headers"]}
        return self._access.admit(
            given.get(b"authorization"),
            given.get(REQUEST_ID.encode()),
            given.get(TRACEPARENT.encode()),
        )
