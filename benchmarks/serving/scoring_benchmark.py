"""Scoring alone: features in the request, one row each, against the model servers people use.

Run it by `./pants run benchmarks/serving/scoring_benchmark.py -- --rounds 5 --peers ~/.cache/espalier-peers`.

Ours is the Open Inference Protocol's ModelInfer. By ghz over gRPC it meets MLServer, which speaks the
same; the others speak HTTP and are loaded by wrk, which costs the cores less than ghz does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from google.protobuf import descriptor_pb2

from inference import open_inference_pb2 as oip
from measure import machine, markdown, spread, spread_header
from serving import load, peers, servers
from serving.load import Load
from serving.place import Place, prepared
from serving.servers import Side

_OURS = "ours (gRPC)"
_METHOD = "inference.GRPCInferenceService/ModelInfer"

Call = Callable[[Side, int, float], Load]
Start = Callable[[Place], AbstractContextManager[Side]]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/seeds"), help="churn's batches")
    parser.add_argument("--peers", type=Path, required=True, help="folder of their environments")
    parser.add_argument("--server", help="churn-server.pex; default: from source")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--callers", type=int, default=16)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        prepared(options.data.absolute(), Path(scratch)) as place,
    ):
        sides = _sides(place, options.peers.absolute(), options.server)
        found: dict[str, list[Load]] = {name: [] for name in sides}
        for number in range(options.rounds):
            names = list(sides)
            for name in names if number % 2 == 0 else reversed(names):
                start, call = sides[name]
                with start(place) as side:
                    call(side, options.callers, 1.0)
                    found[name].append(call(side, options.callers, options.seconds))
                print(f"round {number + 1}: {name}: {found[name][-1]}", file=sys.stderr)
        _tell(found)
        print(f"\n{options.callers} callers; {machine()}")


def _sides(place: Place, folder: Path, program: str | None) -> dict[str, tuple[Start, Call]]:
    # None of them takes a missing value in JSON.
    rows = [row.tolist() for row in place.rows[~np.isnan(place.rows).any(axis=1)][:500]]
    name = place.project.name

    def infer(kind: str, outputs: list[dict[str, object]]) -> Call:
        tensor = {"name": "features", "shape": [1, len(rows[0])], "datatype": kind}
        messages: list[dict[str, object]] = [
            {
                "model_name": name,
                "inputs": [{**tensor, "contents": {f"{kind.lower()}_contents": row}}],
                "outputs": outputs,
            }
            for row in rows
        ]
        protoset = _protoset(place.folder / "inference.protoset")
        return lambda side, callers, seconds: load.grpc(
            side.grpc, _METHOD, messages, callers=callers, seconds=seconds, protoset=protoset
        )

    def post(path: str, body: Callable[[list[float]], object]) -> Call:
        bodies = [json.dumps(body(row)) for row in rows]
        return lambda side, callers, seconds: load.http(
            side.http, path, bodies, callers=callers, seconds=seconds
        )

    probabilities: list[dict[str, object]] = [{"name": "predict_proba"}]
    return {
        _OURS: (lambda p: servers.ours(p, program=program), infer("FP32", [])),
        "MLServer (gRPC)": (
            lambda p: peers.mlserver(p, folder),
            infer("FP64", probabilities),
        ),
        "MLServer (HTTP)": (
            lambda p: peers.mlserver(p, folder),
            post(
                f"/v2/models/{name}/infer",
                lambda row: {
                    "inputs": [
                        {
                            "name": "features",
                            "shape": [1, len(row)],
                            "datatype": "FP64",
                            "data": row,
                        }
                    ],
                    "outputs": probabilities,
                },
            ),
        ),
        "mlflow models serve (HTTP)": (
            lambda p: peers.mlflow(p, folder),
            post("/invocations", lambda row: {"inputs": [row]}),
        ),
        "BentoML (HTTP)": (
            lambda p: peers.bentoml(p, folder),
            post("/predict", lambda row: {"rows": [row]}),
        ),
    }


def _protoset(path: Path) -> Path:
    """The protocol's descriptors, for ghz: MLServer offers no reflection."""
    files = descriptor_pb2.FileDescriptorSet()
    oip.DESCRIPTOR.CopyToProto(files.file.add())
    path.write_bytes(files.SerializeToString())
    return path


def _tell(found: dict[str, list[Load]]) -> None:
    lines = [
        [
            name,
            *spread([one.rate for one in loads], ",.0f"),
            *spread([one.p99 for one in loads], ".1f"),
            str(sum(one.failed for one in loads)),
            *spread([a.rate / b.rate for a, b in zip(found[_OURS], loads, strict=True)], ".1f"),
        ]
        for name, loads in found.items()
    ]
    header = ["side", *spread_header("answers/s"), *spread_header("p99 ms"), "failed"]
    print(markdown([*header, *spread_header("ours is x")], lines))


if __name__ == "__main__":
    main()
