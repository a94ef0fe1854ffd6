"""The codegen rule: one protobuf_source target to _pb2.py, _pb2_grpc.py and a .pyi for each.

protoc and the gRPC plugin come from grpcio-tools; the stubs of the gRPC module, which that one does
not write, from mypy-protobuf. Both stand in the `protoc` lock.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Iterable

from pants.backend.codegen.protobuf.python.additional_fields import PythonSourceRootField
from pants.backend.codegen.protobuf.target_types import ProtobufGrpcToggleField, ProtobufSourceField
from pants.backend.python.target_types import EntryPoint, PythonSourceField
from pants.backend.python.util_rules import pex
from pants.backend.python.util_rules.pex import (
    PexRequest,
    VenvPex,
    VenvPexProcess,
    VenvPexRequest,
)
from pants.backend.python.util_rules.pex_environment import PexEnvironment
from pants.backend.python.util_rules.pex_requirements import PexRequirements, Resolve
from pants.core.util_rules.source_files import SourceFilesRequest
from pants.core.util_rules.stripped_source_files import StrippedSourceFiles
from pants.engine.fs import (
    AddPrefix,
    CreateDigest,
    Digest,
    Directory,
    MergeDigests,
    RemovePrefix,
    Snapshot,
)
from pants.engine.process import ProcessResult
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, rule
from pants.engine.target import (
    GeneratedSources,
    GenerateSourcesRequest,
    TransitiveTargets,
    TransitiveTargetsRequest,
)
from pants.engine.unions import UnionRule
from pants.option.option_types import StrListOption, StrOption
from pants.option.subsystem import Subsystem
from pants.source.source_root import SourceRoot, SourceRootRequest
from pants.util.logging import LogLevel

OUT = "_generated"
STUBS_PLUGIN = "protoc-gen-mypy_grpc"


class GrpcioTools(Subsystem):
    options_scope = "grpcio-tools"
    help = "protoc and the gRPC Python plugin, out of grpcio-tools."

    resolve = StrOption(default="protoc", help="The resolve whose lockfile has grpcio-tools.")
    requirements = StrListOption(
        default=["grpcio-tools", "mypy-protobuf"], help="What the lockfile is asked for."
    )


class GeneratePythonFromProtobufRequest(GenerateSourcesRequest):
    """Python sources are wanted of one protobuf_source target."""

    input = ProtobufSourceField
    output = PythonSourceField


@rule(desc="Generate Python from Protobuf with grpcio-tools", level=LogLevel.DEBUG)
async def generate_python_from_protobuf(
    request: GeneratePythonFromProtobufRequest,
    grpcio_tools: GrpcioTools,
    pex_environment: PexEnvironment,
) -> GeneratedSources:
    target = request.protocol_target
    transitive = await Get(TransitiveTargets, TransitiveTargetsRequest([target.address]))
    tool_request = PexRequest(
        output_filename="protoc.pex",
        internal_only=True,
        requirements=PexRequirements(
            tuple(grpcio_tools.requirements),
            from_superset=Resolve(grpcio_tools.resolve, use_entire_lockfile=True),
        ),
        main=EntryPoint("grpc_tools.protoc"),
    )
    tool, out_dir, all_sources, own_sources = await MultiGet(
        Get(
            VenvPex,
            VenvPexRequest(
                tool_request,
                pex_environment.in_sandbox(working_directory=None),
                bin_names=[STUBS_PLUGIN],
            ),
        ),
        Get(Digest, CreateDigest([Directory(OUT)])),
        # protoc reads what the file imports, but writes only what it was asked for.
        Get(
            StrippedSourceFiles,
            SourceFilesRequest(
                t[ProtobufSourceField]
                for t in transitive.closure
                if t.has_field(ProtobufSourceField)
            ),
        ),
        Get(StrippedSourceFiles, SourceFilesRequest([target[ProtobufSourceField]])),
    )
    arguments = ["--proto_path=.", f"--python_out={OUT}", f"--pyi_out={OUT}"]
    if target.get(ProtobufGrpcToggleField).value:
        arguments += [
            f"--grpc_python_out={OUT}",
            f"--plugin={STUBS_PLUGIN}={tool.bin[STUBS_PLUGIN].argv0}",
            f"--mypy_grpc_out={OUT}",
        ]
    result = await Get(
        ProcessResult,
        VenvPexProcess(
            tool,
            argv=[*arguments, *own_sources.snapshot.files],
            input_digest=await Get(
                Digest, MergeDigests([all_sources.snapshot.digest, out_dir, tool.digest])
            ),
            output_directories=(OUT,),
            description=f"Generating Python sources from {target.address}.",
            level=LogLevel.DEBUG,
        ),
    )
    py_root = target.get(PythonSourceRootField).value
    digest, root = await MultiGet(
        Get(Digest, RemovePrefix(result.output_digest, OUT)),
        Get(
            SourceRoot,
            SourceRootRequest,
            SourceRootRequest(PurePath(py_root))
            if py_root
            else SourceRootRequest.for_target(target),
        ),
    )
    snapshot = (
        await Get(Snapshot, Digest, digest)
        if root.path == "."
        else await Get(Snapshot, AddPrefix(digest, root.path))
    )
    return GeneratedSources(snapshot)


def rules() -> Iterable[Rule | UnionRule]:
    """The backend's rules."""
    return [
        *collect_rules(),
        *pex.rules(),
        UnionRule(GenerateSourcesRequest, GeneratePythonFromProtobufRequest),
    ]
