"""Triton's and KServe's own Python clients ask our server; both must get what BatchPredict gives.

./pants run benchmarks/serving/open_inference_clients.py -- --peers ~/.cache/espalier-peers

No timing, and no test of CI: the clients want another protobuf than we have, so each gets an
environment of its own, as the model servers of `scoring_benchmark.py` do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc
import numpy as np

from espalier.prediction.v1 import prediction_pb2 as pb
from espalier.prediction.v1 import prediction_pb2_grpc as pb_grpc
from serving import peers, servers
from serving.place import Place, prepared
from serving.servers import Side

_ROWS = 200
# Each prints what it was told as JSON: alive, ready, the model ready, another one, scores.
_CLIENTS = {
    "triton-client": """\
import json, sys
import numpy as np
import tritonclient.grpc as triton

address, name, rows = sys.argv[1], sys.argv[2], np.load(sys.argv[3]).astype(np.float32)
client = triton.InferenceServerClient(address)
tensor = triton.InferInput("features", list(rows.shape), "FP32")
tensor.set_data_from_numpy(rows)
inputs = client.get_model_metadata(name).inputs
assert [(one.name, one.datatype) for one in inputs] == [("features", "FP32")], inputs
answer = client.infer(name, [tensor], request_id="triton")
assert answer.get_response().id == "triton"
print(json.dumps([client.is_server_live(), client.is_server_ready(), client.is_model_ready(name),
                  client.is_model_ready("another"), answer.as_numpy("score").tolist()]))
""",
    "kserve-client": """\
import asyncio, json, sys
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

async def main(address, name, file):
    rows = np.load(file).astype(np.float32)
    client = InferenceGRPCClient(address)
    told = []
    for binary in (True, False):
        tensor = InferInput("features", list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows, binary_data=binary)
        request = InferRequest(model_name=name, infer_inputs=[tensor], request_id="kserve")
        answer = await client.infer(request)
        assert answer.id == "kserve"
        (score,) = [output for output in answer.outputs if output.name == "score"]
        told.append(score.as_numpy().tolist())
    assert told[0] == told[1]
    print(json.dumps([await client.is_server_live(), await client.is_server_ready(),
                      await client.is_model_ready(name), await client.is_model_ready("another"),
                      told[0]]))
    await client.close()

asyncio.run(main(*sys.argv[1:]))
""",
}


def main() -> int:
    """Ask by both, and say whether they were told what is true."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/seeds"), help="churn's batches")
    parser.add_argument("--peers", type=Path, required=True, help="folder of their environments")
    parser.add_argument("--server", help="churn-server.pex; default: from source")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        prepared(options.data.absolute(), Path(scratch)) as place,
        servers.ours(place, program=options.server) as side,
    ):
        rows = place.folder / "rows.npy"
        np.save(rows, place.rows[:_ROWS])
        expected = _expected(place, side)
        failed = 0
        for name, program in _CLIENTS.items():
            python = peers.environment(name, options.peers.absolute())
            done = subprocess.run(
                [str(python), "-c", program, side.grpc, place.project.name, str(rows)],
                check=True,
                capture_output=True,
                text=True,
            )
            *states, scores = json.loads(done.stdout.splitlines()[-1])
            same = np.allclose(scores, expected, atol=1e-6)
            passed = states == [True, True, True, False] and same
            failed += not passed
            print(f"{name}: {'passed' if passed else f'FAILED, {states}, same scores: {same}'}")
        return 1 if failed else 0


def _expected(place: Place, side: Side) -> list[float]:
    with grpc.insecure_channel(side.grpc) as channel:
        request = pb.BatchPredictRequest(entity_ids=place.entities[:_ROWS])
        answer = pb_grpc.PredictionServiceStub(channel).BatchPredict(request, timeout=60)
        return [one.score for one in answer.predictions]


if __name__ == "__main__":
    sys.exit(main())
