"""Malformed and oversized input for a real server: frames, messages, tensors, requests and JSON.

./pants run benchmarks/serving/fuzz.py -- --inputs 100000

It ends with 1 when an input ended the server, made it grow, had it log a trace, or was answered by
a code that says the fault is the server's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from espalier.postgres import embedded
from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.serving.testing import create_online_table, running_registry, write_model
from espalier.serving.testing_fuzz import ALLOWED, Target, blocks
from espalier.serving.testing_server import Running, serving
from espalier.serving.testing_wire import resident_bytes
from measure import machine, markdown, megabytes

_GROWTH = 64 * 2**20


def main() -> int:
    """Send the inputs and print a table; 1 when there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=6)
    options = parser.parse_args()
    faults: list[str] = []
    lines = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        embedded.temporary() as database,
        running_registry() as registry,
    ):
        folder = Path(scratch)
        create_online_table(database.dsn())
        write_model(folder / "model")
        registry.publish("1", folder / "model")
        with serving(database.dsn(), registry.uri, folder) as running:
            running.until(running.is_ready)
            target = Target(running.grpc_address, running.http.base_url.netloc.decode())
            for name, send in blocks().items():
                before, began = resident_bytes(running.process.pid), time.monotonic()
                codes = send(target, options.inputs // len(blocks()), options.seed)
                grown = resident_bytes(running.process.pid) - before
                faults += [f"{name}: {fault}" for fault in _faults(running, set(codes), grown)]
                told = ", ".join(f"{code} {count}" for code, count in codes.most_common())
                seconds = f"{time.monotonic() - began:.0f}"
                lines.append([name, str(codes.total()), told, megabytes(grown), seconds])
                print(f"{name}: {codes.total()} answers", file=sys.stderr)
    print(markdown(["inputs", "answers", "by code", "growth", "seconds"], lines))
    print(f"\nseed {options.seed}; {machine()}")
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    return 1 if faults else 0


def _faults(running: Running, codes: set[str], grown: int) -> list[str]:
    """What is wrong with the server after some inputs that were answered by `codes`."""
    found = [f"answered by {code}" for code in codes - ALLOWED]
    if running.process.poll() is not None:
        return [*found, f"ended with {running.process.poll()}"]
    if grown > _GROWTH:
        found.append(f"grew by {megabytes(grown)}")
    if not running.stub.Predict(pb.PredictRequest(entity_id="u0001"), timeout=10).score:
        found.append("predicts nothing")
    if running.http.post("/predict", json={"user_id": "u0001"}).is_error:
        found.append("predicts nothing over HTTP")
    logged = running.log.read_text(errors="replace").splitlines()
    if any(not line.startswith("{") or "trace" in json.loads(line) for line in logged):
        found.append("logged a trace")
    return found


if __name__ == "__main__":
    sys.exit(main())
