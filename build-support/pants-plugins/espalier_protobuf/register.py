"""Protobuf -> Python through grpcio-tools from PyPI.

Pants' own protobuf backend, less its codegen rule: that one downloads protoc and the gRPC
plugin from GitHub releases. Targets, import inference (.proto and Python) and the dependency on
the runtime libraries are Pants' own.
"""

from pants.backend.codegen.protobuf import protobuf_dependency_inference
from pants.backend.codegen.protobuf import tailor as protobuf_tailor
from pants.backend.codegen.protobuf.python import (
    additional_fields,
    python_protobuf_module_mapper,
    python_protobuf_subsystem,
)
from pants.backend.codegen.protobuf.target_types import (
    ProtobufSourcesGeneratorTarget,
    ProtobufSourceTarget,
)
from pants.backend.codegen.protobuf.target_types import rules as protobuf_target_rules
from pants.backend.python.dependency_inference import module_mapper
from pants.core.util_rules import stripped_source_files

from espalier_protobuf import rules as grpcio_rules


def target_types():
    return [ProtobufSourcesGeneratorTarget, ProtobufSourceTarget]


def rules():
    return [
        *additional_fields.rules(),
        *python_protobuf_subsystem.rules(),
        *grpcio_rules.rules(),
        *python_protobuf_module_mapper.rules(),
        *protobuf_dependency_inference.rules(),
        *protobuf_tailor.rules(),
        *protobuf_target_rules(),
        *module_mapper.rules(),
        *stripped_source_files.rules(),
    ]
