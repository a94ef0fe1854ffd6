"""A client of Espalier's prediction server: gRPC with deadlines and retries, plain values back.

    with Client("127.0.0.1:50051") as client:
        print(client.predict("00004").score)

It needs grpcio and protobuf alone, and nothing of the platform.
"""

from espalier_client.aio import AsyncClient
from espalier_client.client import Client
from espalier_client.connection import Retry, Tls
from espalier_client.errors import (
    DeadlineExceeded,
    EntityUnknown,
    FeaturesUnusable,
    InvalidRequest,
    ModelUnknown,
    Overloaded,
    PredictionError,
    ServerFault,
    Unauthenticated,
    Unavailable,
)
from espalier_client.results import EntityStatus, Feature, Model, Prediction, ScoreSource

__all__ = [
    "AsyncClient",
    "Client",
    "DeadlineExceeded",
    "EntityStatus",
    "EntityUnknown",
    "Feature",
    "FeaturesUnusable",
    "InvalidRequest",
    "Model",
    "ModelUnknown",
    "Overloaded",
    "Prediction",
    "PredictionError",
    "Retry",
    "ScoreSource",
    "ServerFault",
    "Tls",
    "Unauthenticated",
    "Unavailable",
]
