"""The page at `/`, and what it shows: the model in force, and a prediction with its features."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel

from espalier.errors import DeadlineTooShort
from espalier.project import Project
from espalier.serving.core import Predictor
from espalier.serving.prediction import Prediction


def add(
    app: FastAPI,
    project: Project,
    predictor: Predictor,
    *,
    question: type[BaseModel],
    answer: Callable[[Prediction], dict[str, Any]],
    admitted: Callable[[], None],
    timeout: float,
) -> None:
    """Add the page's routes.

    Args:
        app: What they are added to.
        project: What is served.
        predictor: Predicts.
        question: The body of a prediction request.
        answer: Turns a prediction into JSON's values.
        admitted: Raises when the caller has used up its rate.
        timeout: Seconds for a prediction.
    """
    html = files("espalier.serving").joinpath("page.html").read_text(encoding="utf-8")
    policy = _policy(html)

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"content-security-policy": policy})

    @app.get("/model")
    async def model() -> dict[str, object]:
        """The model in force: its features, its metrics and where it comes from."""
        loaded = predictor.describe()
        manifest = loaded.manifest
        return {
            "name": loaded.identity.name,
            "version": loaded.identity.version,
            "description": project.description,
            "join_key": project.entity.join_key,
            "threshold": manifest.threshold,
            "features": [
                {"name": name, "type": kind}
                for name, kind in zip(manifest.features, manifest.feature_types, strict=True)
            ],
            "metrics": dict(manifest.metrics),
            "provenance": dict(manifest.provenance),
        }

    async def explain(request: question) -> JSONResponse:  # type: ignore[valid-type]  # given
        """A prediction with the features it was made of; not written to the prediction log."""
        admitted()
        try:
            async with asyncio.timeout(timeout):
                found, features = await predictor.explain(
                    request.entity_id  # type: ignore[attr-defined]  # a field of every question
                )
        except TimeoutError as error:
            raise DeadlineTooShort(f"no answer within {timeout:g} s") from error
        return JSONResponse({**answer(found), "features": features})

    # FastAPI reads the annotation, which is a string until it is resolved here.
    explain.__annotations__["request"] = question
    app.post("/explain")(explain)


def _policy(html: str) -> str:
    """A content security policy that lets in this page's own script and style and nothing else."""

    def hashes(tag: str) -> str:
        found = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digests = (hashlib.sha256(text.encode()).digest() for text in found)
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
