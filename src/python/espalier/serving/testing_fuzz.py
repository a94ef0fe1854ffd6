"""Inputs that no client should send, for a running server, and what it answers.

Each block sends `count` inputs and gives how often each code was the answer: a gRPC status' name, an
HTTP status, or `closed` when the connection ended without one. The seed decides the inputs.
"""

# ruff: noqa: S311  # inputs to repeat, no secrets

from __future__ import annotations

import asyncio
import http.client
import json
import random
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.serving.testing import ENTITIES, FEATURES
from espalier.serving.testing_wire import (
    PREFACE,
    SETTINGS,
    call_frames,
    call_headers,
    frame,
    hpack,
    message,
)
from inference import open_inference_pb2 as oip

# What may be said to a client that is at fault. INTERNAL, UNKNOWN, a deadline and 500 may not.
ALLOWED = frozenset(
    {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "closed"}
    | {"200", "307", "400", "404", "405", "413", "422", "431"}
)

_THREADS = 6
_IN_FLIGHT = 16
_SECONDS = 20.0
# A complete request is answered sooner; an incomplete one would be waited for.
_LOOK_SECONDS = 0.05
_PREDICTION = "/espalier.prediction.v1.PredictionService/"
_INFERENCE = "/inference.GRPCInferenceService/"
_UTF8 = json.dumps({"user_id": "u0001"}).encode()


@dataclass(frozen=True)
class Target:
    """Where the server listens, HOST:PORT."""

    grpc: str
    http: str


Block = Callable[[Target, int, int], Counter[str]]


def blocks() -> dict[str, Block]:
    """Each kind of input by its name, as `block(target, count, seed)`."""
    return {
        "HTTP/2 frames": _frames,
        "gRPC messages": lambda target, count, seed: asyncio.run(
            _calls(target, count, random.Random(seed), _mutated_call)
        ),
        "tensors": lambda target, count, seed: asyncio.run(
            _calls(target, count, random.Random(seed), _tensor_call)
        ),
        "HTTP requests": _requests,
        "JSON": _json_bodies,
    }


def mutated(chance: random.Random, valid: Sequence[bytes]) -> bytes:
    """One of `valid` with some bytes put in, taken out, changed, repeated or cut off."""
    data = bytearray(chance.choice(valid))
    for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
        at = chance.randint(0, len(data))
        kind = chance.randrange(6)
        if kind == 0:
            data[at:at] = chance.randbytes(chance.randint(1, 8))
        elif kind == 1:
            del data[at : at + chance.randint(1, 8)]
        elif kind == 2 and at < len(data):
            data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind == 3:
            part = data[at : at + chance.randint(1, 64)]
            data[at:at] = part * chance.randint(1, 8)
        elif kind == 4 and chance.random() < 0.3:
            del data[at:]
        elif kind == 5:
            other = chance.choice(valid)
            data[at:at] = other[chance.randrange(len(other) + 1) :][:200]
    return bytes(data)


def _spread(
    target: Target,
    count: int,
    seed: int,
    work: Callable[[Target, int, random.Random], Counter[str]],
) -> Counter[str]:
    """Do `work` in parts on some threads."""
    shares = [count // _THREADS + (n < count % _THREADS) for n in range(_THREADS)]
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = [
            pool.submit(work, target, share, random.Random(f"{seed} {n}"))
            for n, share in enumerate(shares)
        ]
        found: Counter[str] = Counter()
        for part in parts:
            found += part.result()
    return found


def _exchange(address: str, data: bytes) -> bytes:
    """Send `data` on a connection of its own; give all that comes back.

    Raises:
        TimeoutError: the server keeps the connection after its client has ended it.
    """
    host, _, port = address.rpartition(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=_SECONDS) as connection:
        try:
            connection.sendall(data)
            connection.settimeout(_LOOK_SECONDS)
            try:
                while part := connection.recv(65_536):
                    answer += part
            except TimeoutError:
                connection.settimeout(_SECONDS)
                connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(65_536):
                    answer += part
        except TimeoutError:
            raise
        except OSError:
            pass
    return answer


# HTTP/2


def _frames(target: Target, count: int, seed: int) -> Counter[str]:
    return _spread(target, count, seed, _send_frames)


def _send_frames(target: Target, count: int, chance: random.Random) -> Counter[str]:
    request = pb.PredictRequest(entity_id="u0001").SerializeToString()
    call = call_frames(f"{_PREDICTION}Predict".encode(), request)
    codes: Counter[str] = Counter()
    for _ in range(count):
        kind = chance.randrange(4)
        if kind == 0:
            data = mutated(chance, [PREFACE + SETTINGS + call])
        elif kind == 1:
            data = PREFACE + SETTINGS + mutated(chance, [call])
        elif kind == 2:
            data = PREFACE + SETTINGS + b"".join(_any_frame(chance) for _ in range(8)) + call
        else:
            block = mutated(chance, [hpack(call_headers(f"{_PREDICTION}Predict".encode()))])
            data = (
                PREFACE
                + SETTINGS
                + frame(0x1, 0x4, 1, block if chance.random() < 0.7 else chance.randbytes(60))
                + frame(0x0, 0x1, 1, message(request))
            )
        _exchange(target.grpc, data)
        codes["closed"] += 1
    return codes


def _any_frame(chance: random.Random) -> bytes:
    """A frame of any kind; a third have a length that is not theirs."""
    kind = chance.choice((*range(10), chance.randrange(256)))
    payload = chance.randbytes(chance.choice((0, 4, 5, 6, 8, 9, 40)))
    stream = chance.choice((0, 1, 2, 3, 5, 2**31 - 1, 2**31))
    made = frame(kind, chance.randrange(256), stream, payload)
    if chance.random() < 0.3:
        made = chance.choice((b"\x00\x00\x01", b"\x00\x40\x00", b"\xff\xff\xff")) + made[3:]
    return made


# gRPC


def _messages() -> dict[str, list[Message]]:
    """Valid requests by method."""
    tensor = {"name": "features", "datatype": "FP64", "shape": [1, len(FEATURES)]}
    content = {"fp64_contents": [0.5] * len(FEATURES)}
    reflection = reflection_pb2.ServerReflectionRequest
    return {
        f"{_PREDICTION}Predict": [
            pb.PredictRequest(entity_id="u0001"),
            pb.PredictRequest(model="churn", entity_id="ž" * 50),
        ],
        f"{_PREDICTION}BatchPredict": [pb.BatchPredictRequest(entity_ids=ENTITIES[:20])],
        f"{_PREDICTION}StreamPredict": [pb.StreamPredictRequest(entity_id="u0001")],
        f"{_PREDICTION}GetModel": [pb.GetModelRequest(model="churn")],
        f"{_INFERENCE}ModelInfer": [
            oip.ModelInferRequest(
                model_name="churn", inputs=[tensor], raw_input_contents=[bytes(8 * len(FEATURES))]
            ),
            oip.ModelInferRequest(inputs=[{**tensor, "contents": content}], id="x"),
        ],
        f"{_INFERENCE}ServerReady": [oip.ServerReadyRequest()],
        f"{_INFERENCE}ModelReady": [oip.ModelReadyRequest(name="churn", version="1")],
        f"{_INFERENCE}ModelMetadata": [oip.ModelMetadataRequest(name="churn")],
        "/grpc.health.v1.Health/Check": [
            health_pb2.HealthCheckRequest(service="espalier.prediction.v1.PredictionService")
        ],
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": [
            reflection(list_services=""),
            reflection(file_containing_symbol="grpc.health.v1.Health"),
            reflection(file_by_filename="espalier/prediction/v1/prediction.proto"),
        ],
    }


_STREAMS = ("StreamPredict", "ServerReflectionInfo")
_VALID = {
    method: [request.SerializeToString() for request in requests]
    for method, requests in _messages().items()
}

Call = tuple[str, list[bytes], list[tuple[str, str | bytes]]]


def _mutated_call(chance: random.Random) -> Call:
    method = chance.choice(list(_VALID))
    valid = _VALID[method]
    if chance.random() < 0.1:
        # What another method takes.
        valid = chance.choice(list(_VALID.values()))
    many = chance.randint(1, 5) if method.endswith(_STREAMS) else 1
    sent = [
        chance.randbytes(chance.randint(0, 60)) if chance.random() < 0.2 else mutated(chance, valid)
        for _ in range(many)
    ]
    return method, sent, _metadata(chance)


def _metadata(chance: random.Random) -> list[tuple[str, str | bytes]]:
    if chance.random() < 0.8:
        return []
    printable = "".join(chr(chance.randint(0x20, 0x7E)) for _ in range(chance.randint(0, 80)))
    name = chance.choice(("authorization", "x-request-id", "traceparent", "tracestate", "x-any"))
    return [(name, printable.strip()), ("x-request-id-bin", chance.randbytes(20))]


def _tensor_call(chance: random.Random) -> Call:
    """ModelInfer with parts that do not fit together."""
    width = len(FEATURES)
    rows = chance.choice((1, 1, 1, 2, 5))
    numbers = (0, 1, -1, rows, width, rows * width, 2**31, 2**62, -(2**63), 2**63 - 1)
    request = oip.ModelInferRequest(
        model_name=chance.choice(("churn",) * 8 + ("", "fraud", "\0", "ž" * 300)),
        model_version=chance.choice(("",) * 8 + ("1", "2", "latest")),
        id=chance.choice(("", "a", "x" * 1000)),
    )
    for _ in range(chance.choice((1,) * 16 + (0, 2, 3))):
        tensor = request.inputs.add(
            name=chance.choice(("features",) * 8 + ("", "other")),
            datatype=chance.choice(("FP32", "FP64") * 4 + ("INT64", "BYTES", "", "fp64")),
            shape=[rows, width]
            if chance.random() < 0.8
            else [chance.choice(numbers) for _ in range(chance.choice((0, 1, 2, 2, 3, 40)))],
        )
        tensor.parameters["p"].int64_param = chance.choice(numbers)
        for field in ("fp64_contents", "fp32_contents", "int64_contents", "bool_contents"):
            wanted = {"FP64": "fp64_contents", "FP32": "fp32_contents"}.get(tensor.datatype)
            if chance.random() < (0.9 if field == wanted else 0.02):
                size = rows * width if chance.random() < 0.9 else chance.randint(0, 40)
                getattr(tensor.contents, field).extend(_values(chance, size, field))
    for _ in range(chance.choice((0,) * 12 + (1, 2))):
        size = rows * width * chance.choice((4, 8))
        request.raw_input_contents.append(
            chance.randbytes(size if chance.random() < 0.7 else chance.randint(0, 200))
        )
    for _ in range(chance.choice((0,) * 12 + (1, 2, 300))):
        request.outputs.add(name=chance.choice(("score", "prediction", "score", "", "\0")))
    return f"{_INFERENCE}ModelInfer", [request.SerializeToString()], []


def _values(chance: random.Random, size: int, field: str) -> list[float] | list[int] | list[bool]:
    if field == "bool_contents":
        return [True] * size
    if field == "int64_contents":
        return [chance.randint(-(2**63), 2**63 - 1) for _ in range(size)]
    odd = (float("nan"), float("inf"), float("-inf"), 1e308, -0.0, 5e-324)
    return [chance.choice(odd) if chance.random() < 0.02 else chance.random() for _ in range(size)]


async def _calls(
    target: Target, count: int, chance: random.Random, make: Callable[[random.Random], Call]
) -> Counter[str]:
    """Make calls, some at once; what is sent are bytes as they are."""
    codes: Counter[str] = Counter()
    left = iter(range(count))
    async with grpc.aio.insecure_channel(target.grpc) as given:
        # Bytes for messages, which its types do not foresee.
        channel: Any = given

        async def one() -> str:
            method, sent, metadata = make(chance)
            try:
                if method.endswith(_STREAMS):
                    call = channel.stream_stream(method)
                    async for _ in call(_each(sent), timeout=_SECONDS, metadata=metadata):
                        pass
                else:
                    await channel.unary_unary(method)(sent[0], timeout=_SECONDS, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                text = str(error.details())
                assert "Traceback" not in text, text
                assert "google.protobuf" not in text, text
                code: str = error.code().name
                if text == "Internal error from Core":
                    # The client's own words: the server ended the stream while it was sending.
                    return "closed"
                if code not in ALLOWED:
                    code = f"{code} of {method}: {text}"
                return code
            return "OK"

        async def caller() -> None:
            for _ in left:
                codes[await one()] += 1

        await asyncio.gather(*(caller() for _ in range(_IN_FLIGHT)))
    return codes


async def _each(sent: list[bytes]) -> AsyncIterator[bytes]:
    for data in sent:
        yield data


# HTTP


def _requests(target: Target, count: int, seed: int) -> Counter[str]:
    return _spread(target, count, seed, _send_requests)


def _send_requests(target: Target, count: int, chance: random.Random) -> Counter[str]:
    length = b"content-length: %d\r\n" % len(_UTF8)
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    chunk = b"%x\r\n%b\r\n" % (len(_UTF8), _UTF8)
    post = head + length + b"connection: close\r\n\r\n" + _UTF8
    valid = [
        post,
        head + b"transfer-encoding: chunked\r\n\r\n" + chunk + b"0\r\ntrailer: x\r\n\r\n",
        head + length + b"expect: 100-continue\r\n\r\n" + _UTF8,
        head + length + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n" + _UTF8,
        head + length + b"transfer-encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n",
        head + b"content-length: 99999999999999999999\r\n\r\n" + _UTF8,
        head + b"content-length: -1\r\n" + length + b"\r\n" + _UTF8,
        head + length + b"authorization: Bearer \xff\xfe\r\nx-request-id: \x80\r\n\r\n" + _UTF8,
        b"GET /ready?x=%ff%00 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET /ready HTTP/1.0\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\nOPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET http://[::1/ready HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /" + b"../" * 50 + b"etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n",
        (head + length + b"\r\n" + _UTF8) * 3 + post,
        PREFACE + SETTINGS,
    ]
    codes: Counter[str] = Counter()
    for _ in range(count):
        answer = _exchange(target.http, mutated(chance, valid))
        found = re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)
        codes.update(status.decode() for status in found if status != b"100")
        codes["closed"] += not found
    return codes


def _json_bodies(target: Target, count: int, seed: int) -> Counter[str]:
    return _spread(target, count, seed, _send_json)


def _send_json(target: Target, count: int, chance: random.Random) -> Counter[str]:
    valid = [
        _UTF8,
        b'{"entity_id": "u0001", "model": "churn"}',
        b'{"user_id": "\\ud800", "model": null}',
        b'{"user_id": 1e999, "user_id": NaN}',
        b'{"user_id": ' + b"9" * 5000 + b"}",
        b"[" * 8000,
        b'{"user_id":' * 1000 + b"1" + b"}" * 1000,
        b'\xef\xbb\xbf{"user_id": "u0001"}',
        '{"user_id": "u0001"}'.encode("utf-16"),
        b'{"user_id": "\xff\xfe"}',
        b"user_id=u0001",
        b"",
    ]
    types = ["application/json"] * 6 + ["text/plain", "application/x-www-form-urlencoded", "", "\t"]
    codes: Counter[str] = Counter()
    connection = http.client.HTTPConnection(target.http, timeout=_SECONDS)
    for _ in range(count):
        path = chance.choice(("/predict", "/predict", "/explain"))
        body = mutated(chance, valid)
        connection.request("POST", path, body, {"content-type": chance.choice(types)})
        answer = connection.getresponse()
        text = answer.read()
        assert b"Traceback" not in text, text
        codes[str(answer.status)] += 1
    connection.close()
    return codes
