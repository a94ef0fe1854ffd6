"""gRPC's health service: the server, its services, and each of its models."""

from __future__ import annotations

from collections.abc import Sequence

from grpc_health.v1 import health, health_pb2

from espalier.serving.grpc_service import SERVICE as PREDICTION
from espalier.serving.open_inference import SERVICE as INFERENCE

SERVICE: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Health:
    """What gRPC's health service says: of the server, of each service, and of each model."""

    def __init__(self, models: Sequence[str]) -> None:
        """Know the models; the service of one is PredictionService's name, a slash and its own."""
        self.servicer = health.aio.HealthServicer()
        self._models = models

    async def start(self) -> None:
        """Say that nothing is ready yet."""
        for model in ("", *self._models):
            await self.set(model, is_ready=False)

    async def set(self, model: str, *, is_ready: bool) -> None:
        """Say it of a model; of the server and its services, when the name is empty."""
        services = [f"{PREDICTION}/{model}"] if model else ["", PREDICTION, INFERENCE]
        status = health_pb2.HealthCheckResponse
        for service in services:
            told = status.SERVING if is_ready else status.NOT_SERVING
            await self.servicer.set(service, told)

    async def stop(self) -> None:
        """Say from now on that nothing is ready."""
        await self.servicer.enter_graceful_shutdown()
