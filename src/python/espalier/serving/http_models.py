"""What HTTP serves of each model: predictions, with their features too, and what the model is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

from fastapi import Body, FastAPI
from fastapi.responses import JSONResponse
from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, create_model
from starlette.exceptions import HTTPException

from espalier.contract import ColumnType
from espalier.errors import DeadlineTooShort, EspalierError
from espalier.project import Project, Task
from espalier.serving.prediction import Prediction
from espalier.serving.routing import Predicts, Product, predicting


def add(
    app: FastAPI, products: Sequence[Product], *, admitted: Callable[[], None], timeout: float
) -> dict[str, str]:
    """Add the routes; give the paths of predictions, each with the name it is counted under.

    Args:
        app: What they are added to.
        products: What is served.
        admitted: Raises when the caller has used up its rate.
        timeout: Seconds for a prediction.
    """
    by_name = {product.name: product for product in products}
    predictor = predicting(products)
    named = len(products) > 1
    counted: dict[str, str] = {}
    _Predictions(predictor, products, admitted, timeout).add(
        app, "", _any_question(products) if named else _question(products[0].project), counted
    )
    for product in products:
        _Predictions(product.predictor, [product], admitted, timeout).add(
            app, f"/models/{product.name}", _question(product.project, named=named), counted
        )

    @app.get("/model")
    async def model() -> dict[str, object]:
        """The model in force: its features, its metrics and where it comes from."""
        return _described(by_name[predictor.describe().identity.name])

    @app.get("/models")
    async def models() -> dict[str, object]:
        """What is served."""
        return {"models": [await _listed(product) for product in products]}

    @app.get("/models/{name}")
    async def one_model(name: str) -> dict[str, object]:
        """The model in force, of that name."""
        return _described(by_name[predictor.describe(name).identity.name])

    @app.get("/models/{name}/ready")
    async def one_ready(name: str) -> JSONResponse:
        """Whether predictions of that model can be answered now; 503 when not."""
        if name not in by_name:
            predictor.describe(name)
        missing = await by_name[name].readiness.missing()
        body = {"ready": not missing, "missing": missing}
        return JSONResponse(body, status_code=503 if missing else 200)

    @app.post("/models/{name}/{what}", include_in_schema=False)
    async def not_served(name: str, what: str) -> None:  # noqa: ARG001  # a part of the path
        """No model of that name, or nothing of that name of it."""
        predictor.describe(name)
        raise HTTPException(404, "Not Found")

    return counted


@dataclass(frozen=True)
class _Predictions:
    """The routes of predictions below one path."""

    predictor: Predicts
    products: Sequence[Product]
    admitted: Callable[[], None]
    timeout: float

    def add(self, app: FastAPI, below: str, question: Any, counted: dict[str, str]) -> None:
        predictor, admitted, timeout = self.predictor, self.admitted, self.timeout
        keys = {product.name: product.project.entity.join_key for product in self.products}

        async def predict(request: question) -> JSONResponse:
            admitted()
            deadline = asyncio.get_running_loop().time() + timeout
            found = await predictor.predict_one(
                request.entity_id, model=request.model, deadline=deadline
            )
            return JSONResponse(_answer(keys[found.model.name], found))

        async def explain(request: question) -> JSONResponse:
            """A prediction with the features it was made of; not written to the prediction log."""
            admitted()
            try:
                async with asyncio.timeout(timeout):
                    found, features = await predictor.explain(
                        request.entity_id, model=request.model
                    )
            except TimeoutError as error:
                raise DeadlineTooShort(f"no answer within {timeout:g} s") from error
            return JSONResponse({**_answer(keys[found.model.name], found), "features": features})

        summary = "Predict for one of the models"
        if len(self.products) == 1:
            summary = self.products[0].project.description
        for handler, told in ((predict, summary), (explain, None)):
            # FastAPI reads the annotation, which is a string until it is resolved here.
            handler.__annotations__["request"] = question
            path = f"{below}/{handler.__name__}"
            app.post(path, summary=told)(handler)
            counted[path] = handler.__name__


def _answer(join_key: str, found: Prediction) -> dict[str, Any]:
    when = found.feature_time
    answer = {
        join_key: found.entity_id,
        "prediction": found.prediction,
        "score": found.score,
        "status": found.status.value,
        "source": found.source.value,
        "model": {"name": found.model.name, "version": found.model.version},
        "feature_time": None if when is None else when.isoformat().replace("+00:00", "Z"),
    }
    if found.label:
        answer |= {"label": found.label, "probabilities": found.probabilities}
    return answer


# An integer key may be JSON's number too; from here on keys are text.
_INTEGER_TEXT = Annotated[str, BeforeValidator(lambda key: str(key) if type(key) is int else key)]


def _question(project: Project, *, named: bool = False) -> type[BaseModel]:
    """The body of a prediction request, with the key under the project's own name.

    Where several products are served it is `named` after its own, and takes that model alone.
    """
    key = project.entity.join_key
    kind = _INTEGER_TEXT if project.key_type is ColumnType.INTEGER else str
    model: Any = (str, Field("", description="the model's name; may be empty"))
    name = "PredictRequest"
    if named:
        model = (Literal[project.name], Field(project.name, description="the model's name"))
        name = f"Predict{project.name.title().replace('_', '')}Request"
    return create_model(
        name,
        __config__=ConfigDict(extra="forbid", strict=True),
        entity_id=(
            kind,
            Field(
                validation_alias=AliasChoices(key, "entity_id"),
                description=f"{project.entity.description}; `entity_id` is taken too",
            ),
        ),
        model=model,
    )


def _any_question(products: Sequence[Product]) -> Any:
    """The body of a request for one of several models: what it may hold, its `model` decides."""
    questions = tuple(_question(product.project, named=True) for product in products)
    return Annotated[Union[questions], Body(discriminator="model")]  # noqa: UP007  # any number


def misnamed(predictor: Predicts, failure: Mapping[str, Any]) -> EspalierError | None:
    """The error of a body that names no model of several, as gRPC tells it; None of other ones.

    Args:
        predictor: What is served.
        failure: What pydantic tells of the body.
    """
    if failure["type"] in ("union_tag_not_found", "union_tag_invalid"):
        try:
            predictor.describe(failure["ctx"].get("tag", ""))
        except EspalierError as error:
            return error
    return None


async def _listed(product: Product) -> dict[str, object]:
    model, project = product.predictor.model, product.project
    return {
        "name": product.name,
        "version": None if model is None else model.identity.version,
        "ready": not await product.readiness.missing(),
        "task": project.task.value,
        "description": project.description,
        "join_key": project.entity.join_key,
    }


def _described(product: Product) -> dict[str, object]:
    loaded = product.predictor.describe()
    manifest = loaded.manifest
    binary = manifest.task == Task.BINARY.value
    return {
        "name": loaded.identity.name,
        "version": loaded.identity.version,
        "description": product.project.description,
        "join_key": product.project.entity.join_key,
        "task": manifest.task,
        **({"threshold": manifest.threshold} if binary else {}),
        **({"classes": manifest.classes} if manifest.classes else {}),
        "features": [
            {"name": name, "type": kind}
            for name, kind in zip(manifest.features, manifest.feature_types, strict=True)
        ],
        "metrics": dict(manifest.metrics),
        "provenance": dict(manifest.provenance),
    }
