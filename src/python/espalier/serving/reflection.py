"""Server reflection v1, and v1alpha for older clients.

grpcio-reflection carries v1alpha alone. v1 has the same messages under another package name, so
its servicer answers both, and its descriptors are renamed for those who ask about v1 itself. It also
knows no method by its name, which the protocol allows to ask for and ghz does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

_ALPHA = "grpc.reflection.v1alpha"
_V1 = "grpc.reflection.v1"
V1_SERVICE = f"{_V1}.ServerReflection"


def add(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Have `server` describe `services`, full names in the default descriptor pool, and itself."""
    _add_v1_descriptors()
    servicer = reflection.aio.ReflectionServicer(
        [*services, V1_SERVICE, reflection.SERVICE_NAME], pool=_Methods(descriptor_pool.Default())
    )
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_registered_method_handlers(V1_SERVICE, {"ServerReflectionInfo": method})


class _Methods:
    """A descriptor pool that finds methods by `package.Service.Method` too."""

    def __init__(self, pool: descriptor_pool.DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802  # the pool's name
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file


def _add_v1_descriptors() -> None:
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = "grpc/reflection/v1/reflection.proto", _V1
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(f".{_ALPHA}.", f".{_V1}.")
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{_ALPHA}.", f".{_V1}.")
            method.output_type = method.output_type.replace(f".{_ALPHA}.", f".{_V1}.")
    # Adding the same file again changes nothing.
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
