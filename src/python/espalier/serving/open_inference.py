"""The Open Inference Protocol over gRPC: converts its tensors to rows of features and back."""

# ruff: noqa: N802, ARG002  # the names and arguments of the generated servicer

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from espalier.errors import EspalierError, InvalidRequest, ModelUnknown, ScoreInvalid
from espalier.serving.grpc_errors import Context
from espalier.serving.grpc_service import deadline_of
from espalier.serving.loading import LoadedModel
from espalier.serving.routing import Predicts, Scores
from espalier.serving.scorer import INPUT, answers
from inference import open_inference_pb2 as pb
from inference import open_inference_pb2_grpc as pb_grpc

SERVICE: str = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
SCORE, PREDICTION = "score", "prediction"

_TYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
_CONTENTS = {"FP32": "fp32_contents", "FP64": "fp64_contents"}
# Of a dimension: beside one of 0 there may be another that no array can have.
_LARGEST = 2**31 - 1


class InferenceService(pb_grpc.GRPCInferenceServiceServicer):
    """`inference.GRPCInferenceService`. Errors pass on to the interceptor."""

    def __init__(
        self,
        predictor: Predicts,
        scorer: Scores,
        *,
        missing: Callable[[], Awaitable[list[str]]],
    ) -> None:
        """Serve the models of `predictor`; `missing` says what stands in the way of predictions."""
        self._predictor, self._scorer, self._missing = predictor, scorer, missing

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        """The process answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        """As the health service says."""
        return pb.ServerReadyResponse(ready=not await self._missing())

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        """Whether that model is in force; an unknown one is not."""
        try:
            self._model(request.name, request.version)
        except EspalierError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """The server's name."""
        return pb.ServerMetadataResponse(name="espalier")

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """The tensors of the model in force."""
        loaded = self._model(request.name, request.version)
        tensor = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=loaded.identity.name,
            versions=[loaded.identity.version],
            platform="onnxruntime_onnx" if loaded.manifest.file.endswith(".onnx") else "sklearn",
            inputs=[tensor(name=INPUT, datatype="FP32", shape=[-1, len(loaded.manifest.features)])],
            outputs=[
                tensor(name=SCORE, datatype="FP64", shape=[-1, *_classes(loaded)]),
                tensor(name=PREDICTION, datatype="FP64", shape=[-1]),
            ],
        )

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        """Scores for rows of features: a number each, of several classes a probability for each."""
        self._model(request.model_name, request.model_version)
        wanted = [output.name for output in request.outputs] or [SCORE, PREDICTION]
        for name in wanted:
            if name not in (SCORE, PREDICTION):
                raise InvalidRequest(
                    f"no output {name[:64]!r}", fix=f"ask for {SCORE} or {PREDICTION}"
                )
        try:
            scored = await self._scorer.score(
                _matrix(request), model=request.model_name, deadline=deadline_of(context)
            )
        except ScoreInvalid as error:
            # The features are the caller's own.
            raise InvalidRequest(str(error)) from error
        identity = scored.model.identity
        if request.model_version not in ("", identity.version):
            # Another one came into force since.
            raise _another_version(request.model_version, identity.version)
        values = {
            SCORE: scored.scores,
            PREDICTION: answers(scored.model.manifest, scored.scores).prediction,
        }
        response = pb.ModelInferResponse(
            model_name=identity.name, model_version=identity.version, id=request.id
        )
        for name in wanted:
            shape = values[name].shape
            output = response.outputs.add(name=name, datatype="FP64", shape=shape)
            if request.raw_input_contents:
                response.raw_output_contents.append(values[name].astype("<f8").tobytes())
            else:
                output.contents.fp64_contents.extend(values[name].ravel())
        return response

    def _model(self, name: str, version: str) -> LoadedModel:
        loaded = self._predictor.describe(name)
        if version not in ("", loaded.identity.version):
            raise _another_version(version, loaded.identity.version)
        return loaded


def _classes(loaded: LoadedModel) -> list[int]:
    """The further dimensions of a model's scores: of several classes, how many these are."""
    return [len(loaded.manifest.classes)] if loaded.manifest.classes else []


def _another_version(asked: str, in_force: str) -> ModelUnknown:
    return ModelUnknown(
        f"version {asked[:64]!r} is not in force", fix=f"ask for {in_force!r} or leave it empty"
    )


def _matrix(request: pb.ModelInferRequest) -> NDArray[np.float64]:
    """The rows [n, f] that a request brings."""
    if [tensor.name for tensor in request.inputs] != [INPUT]:
        raise InvalidRequest(
            f"{len(request.inputs)} input tensors", fix=f"send one tensor, named {INPUT}"
        )
    (tensor,) = request.inputs
    shape = tuple(tensor.shape)
    if tensor.datatype not in _TYPES:
        raise InvalidRequest(
            f"tensor {INPUT} is {tensor.datatype[:16]!r}", fix=f"send {' or '.join(_TYPES)}"
        )
    if len(shape) != 2 or min(shape) < 0:
        raise InvalidRequest(
            f"tensor {INPUT} has {len(shape)} dimensions", fix="send rows and features"
        )
    values = _values(tensor, list(request.raw_input_contents))
    # In Python's integers, which do not wrap around.
    if len(values) != shape[0] * shape[1]:
        raise InvalidRequest(
            f"tensor {INPUT} has {len(values)} elements, its shape says {shape[0] * shape[1]}"
        )
    if max(shape) > _LARGEST:
        raise InvalidRequest(
            f"tensor {INPUT} has a dimension of {max(shape)}", fix=f"send at most {_LARGEST}"
        )
    return values.reshape(shape).astype(np.float64)


def _values(tensor: pb.ModelInferRequest.InferInputTensor, raw: list[bytes]) -> NDArray[Any]:
    kind = _TYPES[tensor.datatype]
    if not raw:
        return np.array(getattr(tensor.contents, _CONTENTS[tensor.datatype]), dtype=kind)
    if len(raw) != 1 or tensor.HasField("contents"):
        raise InvalidRequest("raw contents do not belong to the one input tensor")
    if len(raw[0]) % kind.itemsize:
        raise InvalidRequest(f"raw contents of {len(raw[0])} bytes are no {tensor.datatype}")
    return np.frombuffer(raw[0], dtype=kind)
