"""A bare grpc.aio server of our own messages that computes nothing: what the transport allows."""

from __future__ import annotations

import argparse
import asyncio

import grpc

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.serving import reflection

_SERVICE = pb.DESCRIPTOR.services_by_name["PredictionService"].full_name


async def _predict(request: pb.PredictRequest, _context: object) -> pb.PredictResponse:
    response = pb.PredictResponse(
        entity_id=request.entity_id,
        prediction=1.0,
        score=0.75,
        model=pb.ModelVersion(name="churn", version="1"),
    )
    response.feature_time.seconds = 899_000_000
    return response


async def _serve(address: str) -> None:
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(
        _predict,
        request_deserializer=pb.PredictRequest.FromString,
        response_serializer=pb.PredictResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(_SERVICE, {"Predict": method})
    server.add_generic_rpc_handlers([handler])
    reflection.add(server, [_SERVICE])
    server.add_insecure_port(address)
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    asyncio.run(_serve(parser.parse_args().address))
