from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2 as pb

from espalier.prediction.v1 import prediction_pb2
from espalier.serving import reflection

SERVICE = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name


async def ask(version: str, symbol: str) -> pb.ServerReflectionResponse:
    server = grpc.aio.server()
    reflection.add(server, [SERVICE])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            method = channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=pb.ServerReflectionRequest.SerializeToString,
                response_deserializer=pb.ServerReflectionResponse.FromString,
            )
            call = method(iter([pb.ServerReflectionRequest(file_containing_symbol=symbol)]))
            return await anext(aiter(call))
    finally:
        await server.stop(0)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize("symbol", [SERVICE, f"{SERVICE}.Predict"])
def test_a_service_and_a_method_are_found_by_name(version, symbol):
    answer = asyncio.run(ask(version, symbol))
    assert answer.file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize("symbol", [f"{SERVICE}.Nothing", "nothing", ""])
def test_what_is_not_there_is_an_error_of_the_protocol(symbol):
    answer = asyncio.run(ask("v1", symbol))
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
