"""The page of the wire contract, from the comments in protos/, as buf reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

from docs.markup import code, page, table
from protos import buf

Place = tuple[int, ...]
# Numbers of descriptor.proto's own fields, by which source info names a place.
_MESSAGE, _ENUM, _SERVICE, _FIELD, _METHOD, _VALUE, _NESTED = 4, 5, 6, 2, 2, 2, 3
_INTRODUCTION = """
The files are [prediction.proto](../../protos/espalier/prediction/v1/prediction.proto), our own
contract, and [open_inference.proto](../../protos/inference/open_inference.proto), the Open Inference
Protocol that KServe's and Triton's clients speak. The server also answers `grpc.health.v1.Health`
and reflection. [The prediction server](../serving.md) tells how calls behave.
"""


class _File:
    """A file's descriptor with its comments by place."""

    def __init__(self, descriptor: FileDescriptorProto) -> None:
        self.descriptor = descriptor
        self._comments = {
            tuple(one.path): " ".join(one.leading_comments.split())
            for one in descriptor.source_code_info.location
        }

    def comment(self, *place: int) -> str:
        """What stands above the element."""
        return self._comments.get(place, "")


def rendered(folder: Path) -> str:
    """The page, of the .proto files in a folder with its buf.yaml.

    Raises:
        RuntimeError: buf does not compile them.
    """
    with TemporaryDirectory() as temporary:
        image = Path(temporary) / "image.binpb"
        done = buf.run(folder, "build", "--as-file-descriptor-set", "--output", str(image))
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        files = FileDescriptorSet.FromString(image.read_bytes()).file
    ours = [file for file in files if not file.name.startswith("google/")]
    sections = [part for file in ours for part in _file(_File(file))]
    return page("The wire contract", "protos/", _INTRODUCTION, *sections)


def _file(file: _File) -> Iterator[str]:
    package = file.descriptor.package
    yield f"## {package}"
    for number, service in enumerate(file.descriptor.service):
        yield from _service(file, service, (_SERVICE, number))
    for number, message in enumerate(file.descriptor.message_type):
        yield from _message(file, message, (_MESSAGE, number), message.name)
    for number, enum in enumerate(file.descriptor.enum_type):
        yield from _enum(file, enum, (_ENUM, number))


def _service(file: _File, service: ServiceDescriptorProto, at: Place) -> Iterator[str]:
    yield f"### {service.name}"
    yield file.comment(*at)
    rows = []
    for number, method in enumerate(service.method):
        takes = ("stream " if method.client_streaming else "") + _short(method.input_type)
        gives = ("stream " if method.server_streaming else "") + _short(method.output_type)
        told = file.comment(*at, _METHOD, number)
        rows.append((code(method.name), code(takes), code(gives), told))
    yield table(("method", "takes", "gives", "what"), rows)


def _message(file: _File, message: DescriptorProto, at: Place, name: str) -> Iterator[str]:
    yield f"### {name}"
    yield file.comment(*at)
    rows = [
        (code(field.name), code(_type(field, message)), str(field.number), told)
        for number, field in enumerate(message.field)
        for told in [file.comment(*at, _FIELD, number)]
    ]
    if rows:
        yield table(("field", "type", "number", "what"), rows)
    for number, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from _message(file, nested, (*at, _NESTED, number), f"{name}.{nested.name}")


def _enum(file: _File, enum: EnumDescriptorProto, at: Place) -> Iterator[str]:
    yield f"### {enum.name}"
    yield file.comment(*at)
    rows = [
        (code(value.name), str(value.number), file.comment(*at, _VALUE, number))
        for number, value in enumerate(enum.value)
    ]
    yield table(("value", "number", "when"), rows)


def _type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    """The type as the .proto file has it."""
    if entry := _map_entry(field, message.nested_type):
        key, value = (_scalar(one) for one in entry.field)
        return f"map<{key}, {value}>"
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    return ("repeated " if repeated else "") + _scalar(field)


def _map_entry(
    field: FieldDescriptorProto, nested: Sequence[DescriptorProto]
) -> DescriptorProto | None:
    for one in nested:
        if one.options.map_entry and field.type_name.endswith(f".{one.name}"):
            return one
    return None


def _scalar(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return _short(field.type_name)
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _short(name: str) -> str:
    """A type's name; those of Google keep their package."""
    return name.lstrip(".") if name.startswith(".google.") else name.rpartition(".")[2]
