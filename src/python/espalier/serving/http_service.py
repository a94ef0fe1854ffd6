"""HTTP: the same predictor as JSON, for callers without gRPC, and the server's probes."""

# ruff: noqa: ARG001  # Starlette calls handlers with the request

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, create_model
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from espalier.errors import EspalierError, InvalidRequest
from espalier.project import Project
from espalier.serving.core import Predictor
from espalier.serving.grpc_errors import log_unexpected
from espalier.serving.metrics import Metrics
from espalier.serving.prediction import Prediction
from espalier.serving.readiness import Readiness

TRANSPORT = "http"
MAX_BODY_BYTES = 16_384

_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def create_app(
    project: Project,
    predictor: Predictor,
    readiness: Readiness,
    metrics: Metrics,
    *,
    timeout: float = 10.0,
) -> FastAPI:
    """The ASGI application; a prediction that takes more than `timeout` seconds is a 504.

    `/docs` is FastAPI's page, which a browser completes from a public CDN; `/openapi.json` needs
    nothing from outside.
    """
    app = FastAPI(title=f"{project.name} predictions", description=project.description)
    join_key = project.entity.join_key
    question = _question(project)

    async def predict(request: question) -> JSONResponse:  # type: ignore[valid-type]  # made above
        deadline = asyncio.get_running_loop().time() + timeout
        found = await predictor.predict_one(
            request.entity_id,  # type: ignore[attr-defined]  # a field of every question
            model=request.model,  # type: ignore[attr-defined]  # likewise
            deadline=deadline,
        )
        return JSONResponse(_answer(join_key, found))

    # FastAPI reads the annotation, which is a string until it is resolved here.
    predict.__annotations__["request"] = question
    app.post("/predict", summary=project.description)(predict)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process is alive."""
        return {"status": "alive"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """Whether predictions can be answered now; 503 with what is missing when not."""
        missing = await readiness.missing()
        body = {"ready": not missing, "missing": missing}
        return JSONResponse(body, status_code=503 if missing else 200)

    @app.get("/metrics")
    async def scrape() -> Response:
        """Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    _add_error_handlers(app)
    app.add_middleware(_Counted, metrics=metrics)
    return app


def _question(project: Project) -> type[BaseModel]:
    """The body of a prediction request, with the key under the project's own name."""
    key = project.entity.join_key
    return create_model(
        "PredictRequest",
        __config__=ConfigDict(extra="forbid", strict=True),
        entity_id=(
            str,
            Field(
                validation_alias=AliasChoices(key, "entity_id"),
                description=f"{project.entity.description}; `entity_id` is taken too",
            ),
        ),
        model=(str, Field("", description="the model's name; may be empty")),
    )


def _answer(join_key: str, found: Prediction) -> dict[str, Any]:
    when = found.feature_time
    return {
        join_key: found.entity_id,
        "prediction": found.prediction,
        "score": found.score,
        "status": found.status.value,
        "model": {"name": found.model.name, "version": found.model.version},
        "feature_time": None if when is None else when.isoformat().replace("+00:00", "Z"),
    }


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(EspalierError)
    async def ours(request: Request, error: EspalierError) -> JSONResponse:
        return _refusal(_STATUS.get(error.code, 500), error.reason, str(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
        return _refusal(422, InvalidRequest.reason, f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def not_here(request: Request, error: HTTPException) -> JSONResponse:
        reason = {404: "NO_SUCH_PATH", 405: "METHOD_NOT_ALLOWED"}.get(
            error.status_code, InvalidRequest.reason
        )
        message = f"{request.method} {request.url.path}: {error.detail}"
        return _refusal(error.status_code, reason, message)


def _refusal(status: int, reason: str, message: str) -> JSONResponse:
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return JSONResponse({"reason": reason, "message": message}, status, headers)


class _Counted:
    """ASGI middleware: counts predictions, bounds their bodies and keeps surprises from clients."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/predict":
            await self._app(scope, receive, send)
            return
        start, status, size = time.perf_counter(), 0, 0

        async def counted_receive() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY_BYTES:
                raise HTTPException(413, f"the body has more than {MAX_BODY_BYTES} bytes")
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.started(TRANSPORT)
        try:
            await self._app(scope, counted_receive, counted_send)
        except Exception as error:  # noqa: BLE001  # logged; its text is not for callers
            error_id = log_unexpected(error, "/predict")
            message = f"internal error {error_id}; find it in the server's log"
            if not status:
                await _refusal(500, EspalierError.reason, message)(scope, receive, counted_send)
        finally:
            # 499: the caller left before the answer, by nginx' custom.
            seconds = time.perf_counter() - start
            self._metrics.finished(TRANSPORT, "predict", str(status or 499), seconds)
